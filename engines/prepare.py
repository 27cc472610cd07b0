"""Preparing a graph for a backend: of one size, rewritten as far as that is proved, and typed in the wanted precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import fix_input, load_onnx, ports, simplified
from dlv3deploy.engines.dialect import DIALECTS
from dlv3deploy.engines.open_batch import with_open_batch
from dlv3deploy.engines.precision import NARROWED, is_quantized, kept_in_half, types_in
from dlv3deploy.engines.request import EngineRequest
from dlv3deploy.engines.rewrites.certificate import require_several_images
from dlv3deploy.engines.rewrites.certified import as_far_as_proved, certified
from dlv3deploy.engines.rewrites.rewrite import BY_CHANGE, Rewritten, apply

if TYPE_CHECKING:
    from onnx import ModelProto

BATCH = "batch"  # the name of an open one


def prepared(request: EngineRequest) -> Rewritten:
    """The graph for one image of the spec's size, or an open batch of them, rewritten and in the wanted precision.

    Raises UserError where the graph or the backend does not suit the precision.
    """
    model = of_the_size(request)
    if request.batch > 1 and find_spec("onnxruntime") is not None:
        require_several_images(model, str(request.onnx))
    done = Rewritten(model, request.spec.output, [])
    if request.rewrites:
        if request.asked:
            done = certified(done.model, request.rewrites, done.output, str(request.onnx))
        else:
            done = as_far_as_proved(done.model, request.rewrites, done.output)
    if request.precision == "int8" and request.backend in DIALECTS:
        done = replace(done, model=kept_in_half(done.model))
    if request.precision in NARROWED:
        done = replace(done, model=_narrowed(request, done.model))
    return done


def made_again(request: EngineRequest, changes: Sequence[str]) -> ModelProto:
    """The graph that `prepared` made of a floating-point request, by what it changed (`Rewritten.names`): proved
    then, and not again."""
    names = [BY_CHANGE[change] for change in changes]
    model = apply(simplified(of_the_size(request)), names, request.spec.output).model
    return _narrowed(request, model) if request.precision in NARROWED else model


def of_the_size(request: EngineRequest) -> ModelProto:
    """The request's graph, for images of the spec's size, one or an open batch of them."""
    model = load_onnx(request.onnx)
    _require_precision(model, request)
    takes_one = request.precision != "int8" and ports(model, str(request.onnx))[0].shape[0] is not None
    if request.batch > 1 and takes_one:
        raise UserError(f"--batch {request.batch}", f"{request.onnx} takes one image", "export it with --dynamic-batch")
    if request.batch > 1 and request.precision == "int8":
        model = with_open_batch(model)
    return fix_input(model, _shape(request))


def _narrowed(request: EngineRequest, model: ModelProto) -> ModelProto:
    return fix_input(NARROWED[request.precision](simplified(model)), _shape(request))


def _shape(request: EngineRequest) -> tuple[int | str, int, int, int]:
    return BATCH if request.batch > 1 else 1, 3, request.spec.input.height, request.spec.input.width


def _require_precision(model: ModelProto, request: EngineRequest) -> None:
    if request.precision in ("fp32", "bf16") and "fp16" in types_in(model):
        rule = f"is in half precision, and --{request.precision} is asked for"
        raise UserError(str(request.onnx), rule, "give the file in single precision, or use --fp16")
    if request.precision != "int8" and is_quantized(model):
        raise UserError(
            str(request.onnx), f"is quantised, and --{request.precision} is asked for", "give the floating-point file"
        )


def layer_precision(model: ModelProto) -> dict[str, str]:
    """For every convolution, by name, the type that its input and weights have in the graph: int8, fp16, bf16 or fp32."""
    from onnx import TensorProto

    dequantized = {output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    names = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
    narrow = {w.name: names[w.data_type] for w in model.graph.initializer if w.data_type in names}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            is_int8 = node.input[0] in dequantized and node.input[1] in dequantized
            found[node.name or node.output[0]] = "int8" if is_int8 else narrow.get(node.input[1], "fp32")
    return found
