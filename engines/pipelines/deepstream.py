"""A folder for DeepStream's `nvinfer`: a graph from pixels to probabilities, the labels, and `config_infer.txt`.

nvinfer computes scale · (pixel − mean) with one scale for all channels and takes the class whose probability is highest at each
output position. The graph gets the rest: what channels' deviations differ by goes in front, the upsampling to the input's
size and a softmax go behind. For INT8 the graph is the one for implicit quantisation, the calibration cache lies beside it. A
letterbox has black borders there, and of the mean colour here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing, write_text
from dlv3deploy.core.graph import ports, save_onnx, simplified
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

if TYPE_CHECKING:
    from onnx import ModelProto

MODES = {"fp32": 0, "int8": 1, "fp16": 2}  # nvinfer's network-mode
COLOURS = {"rgb": 0, "bgr": 1}  # nvinfer's model-color-format
TRANSFORMS = {"half-pixel": "half_pixel", "align-corners": "align_corners"}  # ONNX's names
MODEL, LABELS, CONFIG, CACHE = "nvinfer.onnx", "labels.txt", "config_infer.txt", "calibration.cache"
SCALED, PIXELS, LOGITS, PROBABILITIES = "dlv3deploy/deviations", "pixels", "dlv3deploy/logits", "probabilities"
SOFTMAX_OPSET = 13  # since it goes along one axis


def write_deepstream(
    folder: Path,
    graph: ModelProto,
    spec: ModelSpec,
    precision: str,
    cache: Path | None = None,
    options: TensorRTOptions | None = None,
) -> Path:
    """Write the folder for a floating-point `graph` of fixed size; INT8 needs the calibration `cache` of its tensors.

    nvinfer builds its own engine, by what it can do of `options`.

    Raises UserError where nvinfer cannot do what the model needs, or the folder cannot be written. Returns the configuration.
    """
    save_onnx(folder / MODEL, pixels_to_probabilities(graph, spec))
    write_text(folder / LABELS, "".join(f"{label}\n" for label in spec.classes.names))
    if cache is not None:
        with replacing(folder / CACHE) as fresh:
            shutil.copyfile(cache, fresh)
    write_text(folder / CONFIG, _config(spec, precision, cache is not None, options or TensorRTOptions()))
    return folder / CONFIG


def common_std(spec: ModelSpec) -> float:
    """The one deviation that nvinfer divides by: the geometric mean of the channels'."""
    return float(np.exp(np.mean(np.log(spec.input.std))))


def pixels_to_probabilities(graph: ModelProto, spec: ModelSpec) -> ModelProto:
    """The graph that takes (pixel − mean) / `common_std`, 1×3×H×W, and returns probabilities 1×C×H×W.

    Raises UserError for a graph that returns a mask, for scores that are read at a shift, and for an opset before 13.
    """
    from onnx import TensorProto, helper, numpy_helper

    model = simplified(graph)
    given, result = ports(model, "the graph")
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    for is_wrong, what, remedy in (
        (spec.output.kind == "mask", "needs scores, and the model returns a mask", "export the model with scores"),
        (spec.output.shift != 0, "has no shift of scores", "export the model at the output stride that it was trained at"),
        (opset < SOFTMAX_OPSET, f"needs opset {SOFTMAX_OPSET} or later, and the model has {opset}", "export it again"),
        (None in given.shape, "needs a model of fixed size", "add --size"),
    ):
        if is_wrong:
            raise UserError("--export deepstream", what, remedy)
    _, _, height, width = given.shape
    nodes = list(model.graph.node)
    del model.graph.node[:]
    ratio = (common_std(spec) / np.asarray(spec.input.std, np.float64)).astype(np.float32).reshape(1, 3, 1, 1)
    size = np.asarray([1, len(spec.classes.names), height, width], np.int64)
    model.graph.initializer.extend([numpy_helper.from_array(ratio, SCALED), numpy_helper.from_array(size, f"{LOGITS}/size")])
    transform = TRANSFORMS[spec.output.coordinates]
    model.graph.node.extend(
        [
            helper.make_node("Mul", [PIXELS, SCALED], [given.name], SCALED),
            *nodes,
            helper.make_node(
                *("Resize", [result.name, "", "", f"{LOGITS}/size"], [LOGITS], LOGITS),
                mode="linear",
                coordinate_transformation_mode=transform,
            ),
            helper.make_node("Softmax", [LOGITS], [PROBABILITIES], PROBABILITIES, axis=1),
        ]
    )
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, given.shape))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, size.tolist()))
    del model.metadata_props[:]  # the spec in it is of another input and output
    return model


def _config(spec: ModelSpec, precision: str, has_cache: bool, options: TensorRTOptions) -> str:
    given, is_boxed = spec.input, spec.input.resize == "letterbox"
    properties: dict[str, object] = {
        "gpu-id": 0,
        "gie-unique-id": 1,
        "onnx-file": MODEL,
        "model-engine-file": f"{MODEL}_b1_gpu0_{precision}.engine",
        "labelfile-path": LABELS,
        **({"int8-calib-file": CACHE} if has_cache else {}),
        **({"workspace-size": options.workspace_mb} if options.workspace_mb is not None else {}),
        **({"enable-dla": 1, "use-dla-core": options.dla_core} if options.dla_core is not None else {}),
        "batch-size": 1,
        "network-mode": MODES[precision],
        "network-type": 2,
        "infer-dims": f"3;{given.height};{given.width}",
        "model-color-format": COLOURS[given.colour_order],
        "net-scale-factor": repr(1 / common_std(spec)),
        "offsets": ";".join(f"{value:g}" for value in given.mean),
        "maintain-aspect-ratio": int(is_boxed),
        "symmetric-padding": int(is_boxed),
        "num-detected-classes": len(spec.classes.names),
        "segmentation-threshold": 0.0,
        "segmentation-output-order": 0,
        "output-blob-names": PROBABILITIES,
    }
    return "[property]\n" + "".join(f"{key}={value}\n" for key, value in properties.items())
