"""State dicts as others save them: what holds tensors is read, what would run is refused and does not run."""

from __future__ import annotations

import argparse
import pickle
import subprocess
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dlv3deploy.core.errors import UserError
from dlv3deploy.train.weights.state_dict import read_state_dict

PLAIN = {"conv.weight": torch.arange(12.0).reshape(3, 2, 2, 1), "bn.num_batches_tracked": torch.tensor(7)}


def assert_plain(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == PLAIN.keys()
    for name, tensor in found.items():
        assert tensor.dtype == PLAIN[name].dtype
        assert torch.equal(tensor, PLAIN[name])


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.pth.tar", "w.bin", "checkpoint"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_are_read_whatever_they_are_called(tmp_path: Path, name: str, zipped: bool) -> None:
    torch.save(OrderedDict(PLAIN), tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert_plain(read_state_dict(tmp_path / name))


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "w"])
def test_safetensors_are_read_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    save_file(PLAIN, tmp_path / name)
    assert_plain(read_state_dict(tmp_path / name))


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_and_prefixes_of_training_programs_are_taken_off(tmp_path: Path, wrapper: str, prefix: str) -> None:
    torch.save({"epoch": 3, wrapper: {f"{prefix}{name}": tensor for name, tensor in PLAIN.items()}}, tmp_path / "w.pth")
    assert_plain(read_state_dict(tmp_path / "w.pth"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.save({name: t.to(dtype) if t.is_floating_point() else t for name, t in PLAIN.items()}, tmp_path / "w.pth")
    assert_plain(read_state_dict(tmp_path / "w.pth"))


def test_parameters_become_plain_tensors(tmp_path: Path) -> None:
    torch.save({name: torch.nn.Parameter(t, requires_grad=False) for name, t in PLAIN.items()}, tmp_path / "w.pth")
    found = read_state_dict(tmp_path / "w.pth")
    assert_plain(found)
    assert all(type(tensor) is torch.Tensor for tensor in found.values())


def training_checkpoint() -> dict[str, Any]:
    """What VainF/DeepLabV3Plus-Pytorch and torchvision's training script save together."""
    layer = torch.nn.Linear(2, 2)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, 10)
    return {
        "cur_itrs": 30000,
        "model_state": OrderedDict(PLAIN),
        "optimizer_state": optimiser.state_dict(),
        "scheduler_state": scheduler.state_dict(),
        "best_score": np.float64(0.711),
        "args": argparse.Namespace(lr=0.01, device="cuda", resume=None),
    }


def test_numpy_scores_and_options_beside_the_weights_do_no_harm(tmp_path: Path) -> None:
    torch.save(training_checkpoint(), tmp_path / "best.pth")
    with pytest.raises(pickle.UnpicklingError):  # or else this test proves nothing
        torch.load(tmp_path / "best.pth", weights_only=True)
    assert_plain(read_state_dict(tmp_path / "best.pth"))


@pytest.mark.parametrize("place", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_places_of_numpys_scalars_are_known(tmp_path: Path, place: bytes) -> None:
    """NumPy 2 moved them; files of both ages are about."""
    path = tmp_path / "best.pth"
    torch.save(training_checkpoint(), path, _use_new_zipfile_serialization=False)
    saved = path.read_bytes()
    spelt = b"numpy._core.multiarray" if b"numpy._core.multiarray" in saved else b"numpy.core.multiarray"
    path.write_bytes(saved.replace(spelt, place))
    assert place in path.read_bytes()
    assert_plain(read_state_dict(path))


def test_what_is_allowed_for_one_file_is_not_allowed_for_the_next(tmp_path: Path) -> None:
    torch.save(training_checkpoint(), tmp_path / "best.pth")
    read_state_dict(tmp_path / "best.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "best.pth", weights_only=True)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as raised:
        read_state_dict(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)
    return str(raised.value)


class Touch:
    """A pickle that makes a file when it is loaded, in one of several ways."""

    def __init__(self, way: str, path: Path) -> None:
        self.way, self.path = way, path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return {
            "method": (Path.touch, (self.path,)),
            "open": (open, (str(self.path), "w")),
            "process": (subprocess.call, (["touch", str(self.path)],)),
            "eval": (eval, (f"open({str(self.path)!r}, 'w')",)),
        }[self.way]


@pytest.mark.parametrize("way", ["method", "open", "process", "eval"])
@pytest.mark.parametrize("writer", ["zip", "legacy", "pickle"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path, way: str, writer: str) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "it-ran"
    content = {"model_state": {"weight": torch.zeros(1)}, "best_score": Touch(way, trace)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "zip")
    line = refusal(path)
    assert "is no readable state dict (" in line and (writer == "pickle" or "it asks for " in line)
    assert not trace.exists()
    torch.load(path, weights_only=False) if writer != "pickle" else pickle.loads(path.read_bytes())
    assert trace.exists(), "the payload of this test is harmless, so the test proves nothing"


@pytest.mark.parametrize(
    ("content", "named"),
    [(torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"), ({"w": np.zeros(3)}, "multiarray._reconstruct")],
)
def test_a_refusal_names_what_the_pickle_asks_for(tmp_path: Path, content: object, named: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    line = refusal(tmp_path / "w.pth")
    assert named in line and "model.state_dict()" in line


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        {"w": "text"},
        {0: torch.zeros(1)},
        {"state_dict": torch.zeros(1)},
        {"model": [1]},
        {"w": torch.zeros(1), "c": Counter("a")},
        3,
        None,
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert "holds no state dict" in refusal(tmp_path / "w.pth")


def test_sparse_and_complex_tensors_are_refused_by_name(tmp_path: Path) -> None:
    for tensor in (torch.eye(3).to_sparse(), torch.zeros(2, dtype=torch.complex64)):
        torch.save({**PLAIN, "odd.weight": tensor}, tmp_path / "w.pth")
        assert "holds odd.weight in a form that is no plain tensor" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.pth.tar"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert "does not exist" in refusal(path)
    path.write_bytes(b"")
    assert "is empty" in refusal(path)
    path.write_bytes(b"<!DOCTYPE html><html>Not found</html>")
    assert "is no " in refusal(path)
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    assert "is no " in refusal(path)
    path.unlink()
    path.mkdir()
    assert "is a folder" in refusal(path)


@pytest.mark.parametrize("content", [b"junk", b"junk\n", bytes(300)])
def test_what_torch_says_of_junk_in_numbers_or_at_length_is_said_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    assert "is no readable state dict (torch did not write it, or it is damaged)" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_cut_short_anywhere_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_file(PLAIN, path) if name.endswith("safetensors") else torch.save(PLAIN, path)
    whole = path.read_bytes()
    for kept in range(1, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:kept])
        assert "is no " in refusal(path)
