"""Compiling kernels with NVRTC, CUDA's compiler as a library; it needs no GPU and no toolkit."""

from __future__ import annotations

from typing import Any

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.engines.cuda.source import OPTIONS, Source

INSTALL = "install nvidia-cuda-nvrtc of this CUDA's version"


def compiled(source: Source, capability: str) -> bytes:
    """Machine code (cubin) for a compute capability such as "8.7".

    Raises UserError without NVRTC, CheckFailed with its log where it refuses the source or the capability.
    """
    from cuda.bindings import nvrtc

    try:
        code, program = nvrtc.nvrtcCreateProgram(source.text.encode(), source.name.encode(), 0, [], [])
    except RuntimeError as error:
        raise UserError(source.name, f"needs NVRTC, which is not there ({error})", INSTALL) from error
    _require(code)
    options = [f"--gpu-architecture=sm_{capability.replace('.', '')}", *OPTIONS]
    (code,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if int(code) != 0:
        raise CheckFailed(f"{source.name} was not compiled for {capability}: {_log(nvrtc, program) or code.name}")
    machine_code = b" " * int(nvrtc.nvrtcGetCUBINSize(program)[1])
    _require(nvrtc.nvrtcGetCUBIN(program, machine_code)[0])
    nvrtc.nvrtcDestroyProgram(program)
    return machine_code


def _log(nvrtc: Any, program: Any) -> str:
    text = b" " * int(nvrtc.nvrtcGetProgramLogSize(program)[1])
    nvrtc.nvrtcGetProgramLog(program, text)
    return text.rstrip(b"\0 \n").decode(errors="replace")


def _require(code: Any) -> None:
    if int(code) != 0:
        raise CheckFailed(f"NVRTC failed: {code.name}")
