"""ONNX files: reading them safely, what goes in and comes out, the spec inside, and their convolutions."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlv3deploy.core.dilation import ValidTaps, Window
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.files import require_file, write_bytes
from dlv3deploy.core.spec import SPEC_KEY, ModelSpec
from dlv3deploy.core.workspace import by_exporting

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

SAME = (b"SAME_UPPER", b"SAME_LOWER")
Shape = tuple[int | None, ...]


def load_onnx(path: Path) -> ModelProto:
    """The whole, valid model of a file, its nodes with names of their own. Raises UserError when it is missing, cut short or no
    ONNX."""
    import onnx
    from google.protobuf.message import DecodeError

    require_file(path, by_exporting(path))
    try:
        model = onnx.load(str(path), load_external_data=False)
        if any(w.data_location == onnx.TensorProto.EXTERNAL for w in model.graph.initializer):
            raise UserError(
                str(path),
                "keeps its weights in other files, which no hash here would cover",
                "put it into one file: onnx.save(onnx.load(PATH), NEW_PATH)",
            )
        if not model.graph.node:
            raise ValueError("it holds no graph")
        onnx.checker.check_model(model)
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(str(path), f"is no whole ONNX file ({reason})", by_exporting(path)) from error
    give_own_names(model)
    return model


def give_own_names(model: ModelProto) -> None:
    """Everything goes by the names of nodes, which ONNX leaves optional and does not ask to differ."""
    taken: set[str] = set()
    for node in model.graph.node:
        wanted, number = node.name or node.op_type, 0
        node.name = wanted
        while node.name in taken:
            number += 1
            node.name = f"{wanted}_{number}"
        taken.add(node.name)


def save_onnx(path: Path, model: ModelProto) -> None:
    """Write the model; the old file stays until the new one is whole. Raises CheckFailed when it is no valid ONNX."""
    import onnx

    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise CheckFailed(f"{path}: the graph made for it is not valid, nothing was written ({str(error).strip()})") from error
    write_bytes(path, model.SerializeToString())


def graph_sha256(model: ModelProto) -> str:
    """Of what the model computes, whatever is told about it beside the graph."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


@dataclass(frozen=True)
class Port:
    """An input or output of a graph; a None in `shape` is a dimension that may change. `element` is ONNX's name of its type,
    such as FLOAT16."""

    name: str
    shape: Shape
    is_integer: bool
    element: str = "FLOAT"


def ports(model: ModelProto, where: str) -> tuple[Port, Port]:
    """The one image input, N×3×H×W, and the one output. Raises UserError when the graph has another form."""
    weights = {w.name for w in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise UserError(
            where,
            f"has {len(inputs)} inputs and {len(model.graph.output)} outputs",
            "a segmentation model here has one image in and one map out",
        )
    given, result = _port(inputs[0]), _port(model.graph.output[0])
    if len(given.shape) != 4 or given.shape[1] not in (3, None) or given.is_integer:
        raise UserError(where, f"takes {_text(given)}", "the input is a float N×3×H×W image")
    if len(result.shape) not in (3, 4):
        raise UserError(where, f"returns {_text(result)}", "the output is N×C×h×w scores, or an N×H×W or N×1×H×W mask")
    return given, result


def _port(value: ValueInfoProto) -> Port:
    from onnx import TensorProto

    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim)
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    return Port(value.name, shape, kind.elem_type not in floats, TensorProto.DataType.Name(kind.elem_type))


def _text(port: Port) -> str:
    return f"{port.name} {'×'.join('?' if d is None else str(d) for d in port.shape)}{' integers' if port.is_integer else ''}"


def embedded_spec(model: ModelProto, where: str) -> ModelSpec | None:
    """The ModelSpec in the file's metadata, or None in a foreign one."""
    for entry in model.metadata_props:
        if entry.key == SPEC_KEY:
            return ModelSpec.from_text(entry.value, where)
    return None


def embed_spec(model: ModelProto, spec: ModelSpec) -> None:
    """Put `spec` into the model's metadata, in place of an older one."""
    for entry in model.metadata_props:
        if entry.key == SPEC_KEY:
            entry.value = spec.to_text()
            return
    model.metadata_props.add(key=SPEC_KEY, value=spec.to_text())


def simplified(model: ModelProto) -> ModelProto:
    """The same function with constants folded and identities gone; metadata and names of inputs and outputs stay."""
    import onnx

    try:
        import onnxscript.optimizer
    except ImportError as error:
        raise UserError("simplifying an ONNX graph", "needs onnxscript", "pip install onnxscript") from error

    folded: ModelProto = onnxscript.optimizer.optimize(_with_explicit_padding(model))
    if not folded.metadata_props:
        onnx.helper.set_model_props(folded, {entry.key: entry.value for entry in model.metadata_props})
    return folded


def _with_explicit_padding(model: ModelProto) -> ModelProto:
    """A copy in which SAME padding is written out as pads.

    onnxscript up to 0.7.2 does so without regard to atrous rates (its pull request 3037), which changes shapes and results,
    and ONNX Runtime refuses the two together. Padding that depends on an unknown size stays as it is.
    """
    import onnx

    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    shapes = {w.name: tuple(w.dims) for w in plain.graph.initializer}
    if any(attributes(node).get("auto_pad") in SAME for node in plain.graph.node if node.op_type == "Conv"):
        shapes = tensor_shapes(onnx.shape_inference.infer_shapes(plain).graph) | shapes
    for node in plain.graph.node:
        settings = attributes(node)
        if node.op_type != "Conv" or settings.get("auto_pad") not in SAME or len(shapes.get(node.input[1], ())) != 4:
            continue
        given = shapes.get(node.input[0])
        if given is None and max(settings.get("strides", [1, 1])) > 1:
            continue
        rows, columns = conv_windows(
            node, given or (1, 1, 1, 1), shapes[node.input[1]]
        )  # at stride 1 any size has the same pads
        kept = [a for a in node.attribute if a.name not in ("auto_pad", "pads")]
        del node.attribute[:]
        node.attribute.extend(
            [*kept, onnx.helper.make_attribute("pads", [rows.before, columns.before, rows.after, columns.after])]
        )
    return plain


def fix_input(model: ModelProto, shape: tuple[int | str, int, int, int]) -> ModelProto:
    """A copy whose image input has this very shape, or a batch left open under a name, with all shapes behind it inferred."""
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    given, _ = ports(model, "model")
    value = next(i for i in fixed.graph.input if i.name == given.name)
    for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        if isinstance(size, str):
            dimension.dim_param = size
        else:
            dimension.dim_value = size
    del fixed.graph.value_info[:]
    for result in fixed.graph.output:
        for dimension in result.type.tensor_type.shape.dim:
            dimension.Clear()
    inferred: ModelProto = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    return inferred


@dataclass(frozen=True)
class Convolution:
    """One Conv node at one input size. `macs` counts multiply-accumulates, padding included.

    `valid_tap_share` (0 to 1) is the mean over all output positions, `valid_taps` the share of the positions that have exactly
    so many valid taps.
    """

    name: str
    atrous_rate: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    input_shape: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    valid_tap_share: float
    valid_taps: Mapping[int, float]
    macs: int

    @property
    def is_atrous(self) -> bool:
        """A rate above 1 on a kernel above 1×1: a rate on a 1×1 convolution does nothing."""
        return any(rate > 1 and size > 1 for rate, size in zip(self.atrous_rate, self.kernel, strict=True))


def convolutions(model: ModelProto, height: int, width: int) -> list[Convolution]:
    """Every convolution of the graph, in its order, for one image of height×width."""
    shape = (1, 3, height, width)
    fixed = fix_input(simplified(fix_input(model, shape)), shape)  # sizes that are computed in the graph are constants then
    shapes = tensor_shapes(fixed.graph)
    shapes |= {w.name: tuple(w.dims) for w in fixed.graph.initializer}
    return [
        _convolution(node, shapes[node.input[0]], shapes[node.input[1]])
        for node in fixed.graph.node
        if node.op_type == "Conv" and all(len(shapes.get(name, ())) == 4 for name in node.input[:2])
    ]


def tensor_shapes(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor whose dimensions are all known."""
    shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        port = _port(value)
        if value.type.tensor_type.HasField("shape") and None not in port.shape:
            shapes[port.name] = tuple(d for d in port.shape if d is not None)
    return shapes


def spatial_shapes(graph: GraphProto) -> dict[str, tuple[int | None, ...]]:
    """Of every tensor of four dimensions its height and width, None where one is open."""
    ports = [_port(value) for value in (*graph.input, *graph.value_info, *graph.output)]
    return {port.name: port.shape[2:] for port in ports if len(port.shape) == 4}


def attributes(node: NodeProto) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {a.name: get_attribute_value(a) for a in node.attribute}


def _convolution(node: NodeProto, given: tuple[int, ...], weight: tuple[int, ...]) -> Convolution:
    rows, columns = conv_windows(node, given, weight)
    outputs, taps = (rows.outputs, columns.outputs), ValidTaps(rows, columns)
    return Convolution(
        name=node.name or node.output[0],
        atrous_rate=(rows.rate, columns.rate),
        kernel=(rows.kernel, columns.kernel),
        stride=(rows.stride, columns.stride),
        groups=attributes(node).get("group", 1),
        input_shape=(given[1], given[2], given[3]),
        output_shape=(weight[0], *outputs),
        valid_tap_share=taps.share(),
        valid_taps=taps.shares(),
        macs=math.prod(weight) * math.prod(outputs),
    )


def conv_windows(node: NodeProto, given: tuple[int, ...], weight: tuple[int, ...]) -> tuple[Window, Window]:
    """Both axes of a Conv, from the shapes of its input and its weights."""
    settings = attributes(node)
    strides, rates = settings.get("strides", [1, 1]), settings.get("dilations", [1, 1])
    rule, pads = settings.get("auto_pad", b"NOTSET"), settings.get("pads", [0, 0, 0, 0])
    rows, columns = (
        _padded(rule, Window(given[2 + axis], weight[2 + axis], rates[axis], strides[axis], pads[axis], pads[axis + 2]))
        for axis in (0, 1)
    )
    return rows, columns


def _padded(rule: bytes, given: Window) -> Window:
    """`given` with the padding that ONNX's `auto_pad` means: SAME has ceil(size / stride) outputs, UPPER pads more after."""
    if rule not in SAME:
        return given if rule == b"NOTSET" else given._replace(before=0, after=0)
    outputs = -(-given.size // given.stride)
    reach = (outputs - 1) * given.stride + (given.kernel - 1) * given.rate + 1
    padding = max(0, reach - given.size)
    less, more = padding // 2, padding - padding // 2
    return given._replace(before=less, after=more) if rule == b"SAME_UPPER" else given._replace(before=more, after=less)
