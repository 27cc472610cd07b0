"""ONNX Runtime's execution providers: which one runs a model, by choice, or by what this machine has."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dlv3deploy.core.cache_folder import cache_folder
from dlv3deploy.core.errors import UserError
from dlv3deploy.engines.gpu import find_gpu
from dlv3deploy.engines.precision import types_in

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
BY_NAME = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
# How activations lie in memory: ONNX Runtime's own choice first. On a CPU it packs channels into blocks of vectors where it has
# kernels for that; on CUDA channels last is what tensor cores read.
BLOCKED, PLAIN, CHANNELS_LAST = "blocked", "plain", "channels last"
LAYOUTS = {CPU: (BLOCKED, PLAIN), CUDA: (PLAIN, CHANNELS_LAST)}
COMPILED = "onnxruntime-tensorrt"  # a folder of the cache
INSTALL = "install dlv3deploy[onnxruntime], or dlv3deploy[onnxruntime-gpu] for CUDA"


def runtime() -> Any:
    """The module. Raises UserError where it is missing."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("ONNX Runtime", "is not installed", INSTALL) from error
    return onnxruntime


def providers(chosen: str | None = None) -> list[str]:
    """A provider and those that take what it leaves, in ONNX Runtime's names; `chosen` is "cpu", "cuda", "tensorrt" or None.

    None means CUDA where this build of ONNX Runtime and this machine have it, with the CPU for what that leaves, otherwise the
    CPU. A chosen GPU leaves nothing to the CPU. Raises UserError where a chosen provider cannot run here.
    """
    available, gpu = runtime().get_available_providers(), find_gpu()
    if chosen is None:
        return [CUDA, CPU] if CUDA in available and gpu is not None else [CPU]
    wanted = BY_NAME[chosen]
    if wanted not in available:
        names = ", ".join(name for name, provider in BY_NAME.items() if provider in available)
        rule = f"this ONNX Runtime has {names}"
        raise UserError(f"--provider {chosen}", rule, "install dlv3deploy[onnxruntime-gpu] in its place")
    if wanted != CPU and gpu is None:
        raise UserError(f"--provider {chosen}", "needs an NVIDIA GPU, and this machine has none", "use --provider cpu")
    return [wanted, *([CUDA] if wanted == TENSORRT else [])]


def layouts(chosen: str | None) -> tuple[str, ...]:
    """Those of the provider that `chosen` leads to, its own choice first; none where the provider's compiler decides."""
    return LAYOUTS.get(providers(chosen)[0], ())


def with_options(wanted: list[str], model: bytes, layout: str | None) -> list[str | tuple[str, dict[str, Any]]]:
    """Providers as a session takes them: CUDA's is told the layout, TensorRT's which types besides FP32 the model has, and to
    keep what it compiles, which otherwise takes minutes whenever the engine is opened."""
    if wanted[0] == CUDA and layout == CHANNELS_LAST:
        return [(CUDA, {"prefer_nhwc": True}), *wanted[1:]]
    if wanted[0] != TENSORRT:
        return list(wanted)
    import onnx

    types = types_in(onnx.load_from_string(model))
    kept = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache_folder() / COMPILED)}
    return [(TENSORRT, {**{f"trt_{name}_enable": True for name in sorted(types)}, **kept}), *wanted[1:]]


def of_flags(flags: Mapping[str, Any]) -> str | None:
    """The choice that leads to the providers in a manifest, or None where it cannot be made here."""
    for name in BY_NAME:
        with suppress(UserError):
            if providers(name) == flags.get("providers"):
                return name
    return None
