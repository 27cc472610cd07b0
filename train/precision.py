"""Which precision a run computes in."""

from __future__ import annotations

from pathlib import Path

import torch

from dlv3deploy.core.errors import UserError


def precision_for(wanted: str) -> str:
    """Mixed precision where it is faster: bfloat16 on GPUs and CPUs that compute in it, float16 on older GPUs.

    Raises UserError for float16 where there is no GPU: Fabric would quietly train in another precision.
    """
    if wanted == "16-mixed" and not torch.cuda.is_available():
        raise UserError("precision 16-mixed", "is for GPUs", "use auto, 32-true or bf16-mixed")
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "bf16-mixed" if _cpu_computes_bfloat16() else "32-true"


def _cpu_computes_bfloat16() -> bool:
    """Whether Linux lists bfloat16 instructions for this CPU; without them bfloat16 is emulated and slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return any(name in flags for name in ("avx512_bf16", "amx_bf16", " bf16"))
