"""Which precision a run computes in, on machines with and without bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlv3deploy.core.errors import UserError
from dlv3deploy.train.precision import precision_for


def machine(monkeypatch: pytest.MonkeyPatch, gpu: bool, bfloat16: bool, cpu_flags: str = "flags: fpu avx2") -> None:
    """A machine with these; torch says yes to bfloat16 on every GPU unless emulation is left out."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16 or including_emulation)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: cpu_flags)


def test_a_gpu_that_computes_in_bfloat16_uses_it_and_an_older_one_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpu=True, bfloat16=True)
    assert precision_for("auto") == "bf16-mixed"
    machine(monkeypatch, gpu=True, bfloat16=False)
    assert precision_for("auto") == "16-mixed"


@pytest.mark.parametrize("flags", ["flags: avx512_bf16 avx512vbmi", "flags: amx_bf16", "Features: asimd bf16 i8mm"])
def test_a_cpu_with_bfloat16_instructions_uses_them(monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    machine(monkeypatch, gpu=False, bfloat16=False, cpu_flags=flags)
    assert precision_for("auto") == "bf16-mixed"


def test_other_cpus_compute_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpu=False, bfloat16=False)
    assert precision_for("auto") == "32-true"

    def no_proc(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", no_proc)
    assert precision_for("auto") == "32-true"


def test_what_is_asked_for_is_taken_but_float16_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpu=False, bfloat16=False)
    assert [precision_for(name) for name in ("32-true", "bf16-mixed")] == ["32-true", "bf16-mixed"]
    with pytest.raises(UserError, match="16-mixed: is for GPUs; use auto, 32-true or bf16-mixed"):
        precision_for("16-mixed")
    machine(monkeypatch, gpu=True, bfloat16=True)
    assert precision_for("16-mixed") == "16-mixed"
