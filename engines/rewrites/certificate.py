"""Certificate: how far a rewritten graph's outputs are from those of the original, on the same inputs.

ONNX Runtime runs both as they are written, without optimising anything. Where upsampling was left to postprocessing, that is
what is compared: the scores interpolated by it, and the mask that it makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.core.bilinear import axis_for, interpolated
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import ports
from dlv3deploy.core.preprocess import Geometry
from dlv3deploy.core.spec import OutputSpec
from dlv3deploy.core.upsample_argmax import upsample_argmax
from dlv3deploy.engines.precision import is_quantized

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE = 1e-5
ALIKE = 0.99  # of positions in an INT8 graph, where a sum in another order may round to the next step
MOST_ALIKE = 0.999  # of outputs for several images
INSTALL = "install dlv3deploy[onnxruntime]"


@dataclass(frozen=True)
class Certificate:
    """`inputs` were compared. `difference` is the largest of all outputs, over the largest magnitude of the original's (of
    masks the share that differs); infinite where an output is not finite. `agreement` is the share of positions, 0 to 1, with
    the same best class."""

    inputs: int
    difference: float
    agreement: float

    @property
    def is_exact(self) -> bool:
        """But for the order of float32 sums."""
        return self.difference <= TOLERANCE


def certify(
    original: ModelProto, changed: ModelProto, inputs: Iterable[NDArray[np.float32]], scores: OutputSpec | None = None
) -> Certificate:
    """Compare two graphs on inputs N×C×H×W; `scores` says what `changed` returns where the original returns logits.

    Raises UserError where ONNX Runtime is missing or refuses one.
    """
    runs = [_runner(original, "the original graph"), _runner(changed, "the rewritten graph")]
    largest = furthest = 0.0
    same = positions = count = 0
    for given in inputs:
        wanted, found = (run(given) for run in runs)
        if scores is None and wanted.shape != found.shape:
            return Certificate(count, math.inf, 0.0)
        if wanted.dtype.kind == "f":
            found, mask = (found, found.argmax(axis=1)) if scores is None else _upsampled(found, wanted.shape[2:], scores)
            wanted, found = wanted.astype(np.float64), found.astype(np.float64)
            apart = np.abs(found - wanted).max() if np.isfinite(wanted).all() and np.isfinite(found).all() else math.inf
            furthest, largest = max(furthest, float(apart)), max(largest, float(np.abs(wanted).max()))
            alike = wanted.argmax(axis=1) == mask
        else:
            alike = wanted == found
            furthest, largest = furthest + np.count_nonzero(~alike), largest + alike.size
        same, positions, count = same + int(np.count_nonzero(alike)), positions + alike.size, count + 1
    relative = furthest / largest if largest and math.isfinite(furthest) else float(furthest)
    return Certificate(count, relative, same / max(1, positions))


def _upsampled(scores: Any, size: tuple[int, int], output: OutputSpec) -> tuple[Any, Any]:
    """Logits and masks of `size` as postprocessing makes them of scores N×C×h×w."""
    geometry = Geometry(size, size, (1.0, 1.0), (0.0, 0.0))
    axes = [axis_for(geometry, axis, scores.shape[2 + axis], output) for axis in (0, 1)]
    values = scores.astype(np.float32)
    return np.stack([interpolated(one, *axes) for one in values]), np.stack([upsample_argmax(one, *axes) for one in values])


def noise(shape: tuple[int, int, int, int], count: int = 2) -> Iterator[NDArray[np.float32]]:
    """Normal inputs of this shape, the same every time; no picture is as rich."""
    random = np.random.default_rng(0)
    for _ in range(count):
        yield random.standard_normal(shape).astype(np.float32)


def require_several_images(model: ModelProto, where: str) -> None:
    """Raise UserError where a graph of open batch does not return for two images what it returns for each alone.

    In an INT8 graph a sum in another order may round to the next step, which the classes of nearly all positions outlive.
    """
    is_int8 = is_quantized(model)
    _, channels, height, width = (size or 1 for size in ports(model, where)[0].shape)
    run, (images,) = _runner(model, where), noise((2, channels, height, width), 1)
    remedy = "leave --batch out" if is_int8 else "export it with --dynamic-batch, or leave --batch out"
    try:
        together, alone = run(images), np.concatenate([run(images[:1]), run(images[1:])])
    except (UserError, ValueError) as error:  # ValueError: results that do not go together
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(where, f"takes one image alone, whatever its input says ({reason})", remedy) from error
    if together.shape != alone.shape or not _are_alike(together, alone, is_int8):
        raise UserError(where, "returns something else for an image that is not alone", remedy)


def _are_alike(found: NDArray[Any], wanted: NDArray[Any], is_int8: bool) -> bool:
    close = np.isclose(found, wanted, atol=1e-4 * float(np.abs(wanted).max()))
    if not is_int8:
        return float(np.mean(close)) >= MOST_ALIKE
    alike = found.argmax(1) == wanted.argmax(1) if found.ndim == 4 and found.shape[1] > 1 else found == wanted
    return float(np.mean(alike)) >= ALIKE


def _runner(model: ModelProto, where: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("comparing graphs", "needs ONNX Runtime, which is not installed", INSTALL) from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no public base
        raise UserError(where, f"cannot be run by ONNX Runtime ({str(error).strip()[:200]})", "see `inspect`") from error
    given = session.get_inputs()[0]
    kind = np.float16 if "float16" in given.type else np.float32

    def run(values: NDArray[np.float32]) -> Any:
        try:
            return session.run(None, {given.name: values.astype(kind)})[0]
        except Exception as error:  # as above
            raise UserError(where, f"cannot be run by ONNX Runtime ({str(error).strip()[:200]})", "see `inspect`") from error

    return run
