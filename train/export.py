"""From a checkpoint to a self-describing ONNX file, checked against PyTorch before it takes its place.

The TorchScript-based exporter of torch is used on purpose: it writes every opset from 11 on (TensorRT 8.6 stops at 17, where
the newer exporter begins at 18), folds batch norm, and takes a tenth of the time.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.graph import embed_spec, save_onnx, simplified
from dlv3deploy.core.spec import ModelSpec, OutputKind, OutputSpec, check_size
from dlv3deploy.train.checkpoint import load_checkpoint
from dlv3deploy.train.network.deeplabv3 import DeepLabV3, upsample_to

if TYPE_CHECKING:
    from onnx import ModelProto

OPSETS = range(11, 21)
DEFAULT_OPSET = 17  # the newest that TensorRT 8.6 to 11, TensorRT-RTX and ONNX Runtime 1.13 all read
SCORE_TOLERANCE = 1e-4  # of the largest score: float32 summed in another order stays well below it
MASK_TOLERANCE = 1e-3  # share of pixels whose two best scores may tie within rounding


@dataclass(frozen=True)
class ExportChoices:
    """`size` (height, width) replaces the checkpoint's; a dynamic one is then the default of later steps.

    So does `output_stride`: what was trained at 16 serves at 8 (paper, Tables 4 and 6).
    """

    output: OutputKind = "scores"
    size: tuple[int, int] | None = None
    dynamic_size: bool = False
    dynamic_batch: bool = False
    opset: int = DEFAULT_OPSET
    output_stride: int | None = None


@dataclass(frozen=True)
class Parity:
    """How far the ONNX file is from PyTorch: largest difference as a share of the largest score, and of differing pixels."""

    difference: float
    tolerance: float
    runtime: str


class ExportedModel(nn.Module):
    """The network up to the wanted output: scores N×C×h×w, logits N×C×H×W, or mask N×H×W uint8."""

    def __init__(self, model: DeepLabV3, output: OutputSpec) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.model(image)
        if self.output.kind == "scores":
            return scores
        logits = upsample_to(scores, image.shape[2], image.shape[3], self.output.coordinates)
        return logits if self.output.kind == "logits" else logits.argmax(1).to(torch.uint8)


def export(checkpoint: Path, onnx_path: Path, choices: ExportChoices) -> tuple[ModelSpec, Parity]:
    """Write `onnx_path` from `checkpoint`.

    Raises UserError for settings that cannot be met and CheckFailed, leaving the old file in place, when ONNX Runtime and
    PyTorch disagree on real-looking input.
    """
    if choices.opset not in OPSETS:
        raise UserError(
            f"opset {choices.opset}", f"is outside {OPSETS[0]} to {OPSETS[-1]}", f"{DEFAULT_OPSET} suits every backend"
        )
    model, spec = load_checkpoint(checkpoint, choices.output_stride)
    size = choices.size or (spec.input.height, spec.input.width)
    check_size(*size, model.architecture.output_stride)
    _require_finite(model, checkpoint)
    spec = replace(
        spec,
        input=replace(
            spec.input, height=size[0], width=size[1], dynamic_size=choices.dynamic_size, dynamic_batch=choices.dynamic_batch
        ),
        output=_output(spec.output, choices),
    ).made_from(checkpoint=sha256_of(checkpoint))
    proto = to_onnx(ExportedModel(model, spec.output).eval(), spec, choices.opset)
    parity = check_parity(ExportedModel(model, spec.output).eval(), proto, spec)
    save_onnx(onnx_path, proto)
    return spec, parity


def _output(trained: OutputSpec, choices: ExportChoices) -> OutputSpec:
    """The wanted output, by the rule that the scores were trained with. Raises UserError where no graph can follow it."""
    if trained.shift and choices.output != "scores":
        raise UserError(
            f"--output {choices.output} at output stride {choices.output_stride}",
            "scores that were trained half-pixel at another stride are read between the cells of this one",
            "use --output scores, or train with sides of k · stride + 1, such as 513",
        )
    return replace(trained, kind=choices.output)


def _require_finite(model: DeepLabV3, checkpoint: Path) -> None:
    """Raise CheckFailed for a broken weight: a mask would hide it, since every runtime may take NaN for the same class."""
    broken = [name for name, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise CheckFailed(
            f"{checkpoint}: {broken[0]} holds values that are not finite; train again with a lower --learning-rate"
        )


def to_onnx(model: nn.Module, spec: ModelSpec, opset: int) -> ModelProto:
    """The traced graph with `spec` in its metadata: input `image`, output named after its kind."""
    import onnx

    name = spec.output.kind
    dynamic: dict[str, dict[int, str]] = {"image": {}, name: {}}
    if spec.input.dynamic_batch:
        dynamic["image"][0] = dynamic[name][0] = "batch"
    if spec.input.dynamic_size:
        first = 1 if name == "mask" else 2
        dynamic["image"] |= {2: "height", 3: "width"}
        dynamic[name] |= {first: f"{name}_height", first + 1: f"{name}_width"}
    image = torch.zeros(2 if spec.input.dynamic_batch else 1, 3, spec.input.height, spec.input.width)
    data = io.BytesIO()
    with _quiet():
        torch.onnx.export(
            model,
            (image,),
            data,  # type: ignore[arg-type]  # a file object is taken too
            dynamo=False,
            opset_version=opset,
            input_names=["image"],
            output_names=[name],
            dynamic_axes=dynamic,
        )
    proto = simplified(onnx.load_from_string(data.getvalue()))
    proto.producer_name = "dlv3deploy"
    embed_spec(proto, spec)
    onnx.checker.check_model(proto, full_check=True)
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about itself: that it is the older one, and that shapes were traced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_parity(model: nn.Module, proto: ModelProto, spec: ModelSpec) -> Parity:
    """Compare the graph, as ONNX Runtime (or else ONNX's reference) runs it, with PyTorch. Raises CheckFailed.

    Dynamic axes are tried at a second size and batch, because a trace that froze a shape passes at the traced one.
    """
    run, runtime = _runner(proto)
    worst, tolerance = 0.0, MASK_TOLERANCE if spec.output.kind == "mask" else SCORE_TOLERANCE
    for batch in parity_batches(spec):
        with torch.inference_mode():
            expected = model(torch.from_numpy(batch)).numpy()
        if not np.isfinite(expected).all():
            raise CheckFailed("PyTorch itself computes values that are not finite; train again with a lower --learning-rate")
        try:
            found = run(batch)
        except Exception as error:  # the runtimes' own exceptions share no public base
            raise CheckFailed(f"{runtime} failed on {batch.shape}: {_first_line(error)}; report this") from error
        if found.shape != expected.shape:
            raise CheckFailed(
                f"the exported graph returns {found.shape} for {batch.shape}, PyTorch {expected.shape}; report this"
            )
        if spec.output.kind == "mask":
            difference = float((found != expected).mean())
        else:
            difference = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12))
        worst = max(worst, difference) if np.isfinite(difference) else float("inf")
    if worst > tolerance:
        whole = "the mask" if spec.output.kind == "mask" else f"the largest {spec.output.kind}"
        raise CheckFailed(
            f"{runtime} differs from PyTorch by {worst:.2e} of {whole}, {tolerance:.0e} is allowed; try another --opset"
        )
    return Parity(worst, tolerance, runtime)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _runner(proto: ModelProto) -> tuple[Callable[[Batch], NDArray[Any]], str]:
    """What runs the graph, and its name."""
    try:
        import onnxruntime

        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        return lambda batch: session.run(None, {"image": batch})[0], f"ONNX Runtime {onnxruntime.__version__}"
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        evaluator: Any = ReferenceEvaluator(proto)
        return lambda batch: evaluator.run(None, {"image": batch})[0], "ONNX's reference evaluator"


def parity_batches(spec: ModelSpec) -> list[Batch]:
    """Natural-looking inputs: smooth shapes with texture, normalised as the spec says."""
    height, width = spec.input.height, spec.input.width
    shapes = [(2 if spec.input.dynamic_batch else 1, height, width)]
    if spec.input.dynamic_size:
        stride = spec.architecture.output_stride if spec.architecture else 1
        height, width = height + 2 * stride, max(stride, width - 3 * stride)
    if spec.input.dynamic_size or spec.input.dynamic_batch:
        shapes.append((1, height, width))
    return [np.stack([_picture(h, w, seed, spec) for seed in range(n)]) for n, h, w in shapes]


def _picture(height: int, width: int, seed: int, spec: ModelSpec) -> NDArray[np.float32]:
    """A 3×H×W picture with a natural image's 1/f spectrum, 0 to 255, then normalised."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1.0 / max(height, width)
    spectrum = np.fft.rfft2(random.standard_normal((3, height, width))) / frequency
    waves = np.fft.irfft2(spectrum, s=(height, width))
    waves = (waves - waves.mean()) / max(float(waves.std()), 1e-12)
    pixels = np.clip(120 + 60 * waves, 0, 255)
    mean, std = (np.array(v)[:, None, None] for v in (spec.input.mean, spec.input.std))
    normalised: NDArray[np.float32] = ((pixels - mean) / std).astype(np.float32)
    return normalised
