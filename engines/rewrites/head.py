"""Head: the last upsampling leaves the graph, and postprocessing interpolates the scores instead.

A graph that returns logits N×C×H×W has computed, at the very end, H·W/(h·w) times as many numbers as it knows. Behind this
rewrite it returns the N×C×h×w scores that they are interpolated from, with the rule of interpolation in the spec, and
`core.postprocess` takes the argmax without ever storing what is between. At the input's size the mask is the same in every
pixel but where scores tie; frames of another size are interpolated once in place of twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlv3deploy.core.graph import ports
from dlv3deploy.core.spec import Coordinates, OutputSpec
from dlv3deploy.engines.rewrites.change import Change

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto

NAME = "upsampling left to postprocessing"
COORDINATES: dict[str, Coordinates] = {
    "half_pixel": "half-pixel",
    "pytorch_half_pixel": "half-pixel",  # which differs for one row or column of outputs alone
    "align_corners": "align-corners",
}
PLAIN = {"antialias": 0, "exclude_outside": 0}  # what a linear Resize must not be told otherwise
SCALES = 2  # the input of a Resize
SCALE_TOLERANCE = 1e-6
OLDEST_OPSET = 11


def without_head(model: ModelProto, output: OutputSpec) -> tuple[ModelProto, OutputSpec, Change] | None:
    """A copy of `model` that returns scores, what that output is, and the change; None where its end is no such upsampling.

    `model` is of fixed size, its batch may be open, simplified, with shapes inferred; `output` says what it returns. A graph
    that rounds its logits to half precision keeps its end, and one of an opset before 11, whose Resize knows no such rule.
    """
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if output.kind != "logits" or output.shift or opset < OLDEST_OPSET:
        return None
    height, width = ports(model, "the graph")[0].shape[2:]
    copy = onnx_ir.from_proto(model)
    result = copy.graph.outputs[0]
    resize = result.producer()
    scores = resize.inputs[0] if resize is not None and resize.op_type == "Resize" else None
    if resize is None or scores is None or _sizes(result)[2:] != (height, width) or result.dtype != onnx_ir.DataType.FLOAT:
        return None
    coordinates = _coordinates_of(resize)
    if coordinates is None or not _is_even(resize, _sizes(scores), _sizes(result)):
        return None
    copy.graph.outputs[0] = scores
    RemoveUnusedNodesPass()(copy)
    small, large = ("×".join(map(str, _sizes(value)[1:])) for value in (scores, result))
    change = Change(resize.name or NAME, NAME, f"{small} scores in place of {large}", 0, 0)
    return onnx_ir.to_proto(copy), OutputSpec("scores", coordinates), change


def _sizes(value: ir.Value) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in value.shape or ())


def _coordinates_of(resize: ir.Node) -> Coordinates | None:
    """The rule of a plain bilinear interpolation; None for any other."""
    attributes = resize.attributes
    linear = attributes.get_string("mode", "nearest") == "linear"
    stretched = attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
    if not linear or not stretched or any(attributes.get_int(name, value) != value for name, value in PLAIN.items()):
        return None
    return COORDINATES.get(attributes.get_string("coordinate_transformation_mode", "half_pixel"))


def _is_even(resize: ir.Node, small: tuple[int | None, ...], large: tuple[int | None, ...]) -> bool:
    """Whether images and channels stay, and the scales that are given, if any, are those of the sizes: 2.5 makes 7 of 3, and
    reads them elsewhere than sizes would."""
    images = {small[0], large[0]} - {None} if small and large else set()
    if len(small) != 4 or len(images) > 1 or None in (*small[1:], *large[1:]) or small[1] != large[1]:
        return False
    given = resize.inputs[SCALES] if len(resize.inputs) > SCALES else None
    if given is None or given.const_value is None or given.const_value.size == 0:
        return given is None or given.const_value is not None
    ratios = [1.0, *(after / before for after, before in zip(large[1:], small[1:], strict=True) if after and before)]
    scales = given.const_value.numpy()
    axes = resize.attributes.get_ints("axes", range(4))
    return all(abs(scale - ratios[axis]) <= SCALE_TOLERANCE * scale for axis, scale in zip(axes, scales, strict=True))
