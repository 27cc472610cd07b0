"""What a checkpoint says about itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from core.stand_ins import spec_with
from safetensors.numpy import save

from dlv3deploy.core.checkpoints import checkpoint_facts
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import SPEC_KEY

SPEC = spec_with(3, 65, 65)
WEIGHTS = {"conv.weight": np.zeros((4, 3, 3, 3), np.float32), "steps": np.zeros((), np.int64)}
WHOLE = save(WEIGHTS, metadata={SPEC_KEY: SPEC.to_text()})


def test_spec_and_count_of_numbers(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(WHOLE)
    facts = checkpoint_facts(tmp_path / "m.safetensors")
    assert facts.spec == SPEC
    assert facts.numbers == 4 * 3 * 3 * 3 + 1


def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for length in range(0, len(WHOLE), 7):
        path.write_bytes(WHOLE[:length])
        with pytest.raises(UserError, match=r"m\.safetensors: is (no whole safetensors file|empty)"):
            checkpoint_facts(path)


def test_a_flipped_bit_never_ends_in_another_exception(tmp_path: Path) -> None:
    path, refused = tmp_path / "m.safetensors", 0
    for i in range(0, len(WHOLE), 5):
        path.write_bytes(WHOLE[:i] + bytes([WHOLE[i] ^ 0x15]) + WHOLE[i + 1 :])
        try:
            checkpoint_facts(path)
        except UserError:
            refused += 1
    assert refused > 40


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_weights_of_another_program_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    (tmp_path / "m.safetensors").write_bytes(save(WEIGHTS, metadata=metadata))
    with pytest.raises(UserError, match="checkpoint of another program"):
        checkpoint_facts(tmp_path / "m.safetensors")


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", json.dumps(SPEC.to_json() | {"input": None})])
def test_a_damaged_description_inside_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.safetensors").write_bytes(save(WEIGHTS, metadata={SPEC_KEY: text}))
    with pytest.raises(UserError, match="damaged model description"):
        checkpoint_facts(tmp_path / "m.safetensors")


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"\0" * 99, b"a text " * 30, b"\xff" * 200, b"\0" * 8])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is no whole safetensors file"):
        checkpoint_facts(tmp_path / "m.safetensors")


def test_a_missing_file_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; make one with: dlv3deploy train"):
        checkpoint_facts(tmp_path / "m.safetensors")
