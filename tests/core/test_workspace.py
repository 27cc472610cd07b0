"""The workspace's file names, and the errors' texts and exit codes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from dlv3deploy.core.errors import CheckFailed, Dlv3Error, StaleArtefact, UserError
from dlv3deploy.core.files import replacing
from dlv3deploy.core.workspace import Workspace, manifest_path


def test_names_are_those_that_the_commands_promise() -> None:
    place = Workspace(Path("w"))
    own, other = place.onnx, Path("elsewhere/net.onnx")
    assert (str(place.checkpoint), str(own), str(place.training)) == ("w/model.safetensors", "w/model.onnx", "w/train")
    assert [str(place.int8_onnx(p)) for p in (own, other)] == ["w/model.int8.onnx", "w/net.int8.onnx"]
    assert [str(place.calibration(p)) for p in (own, other)] == ["w/calibration.json", "w/net.calibration.json"]
    engines = [place.engine(p, "int8", "sm87") for p in (own, other)]
    assert [str(p) for p in engines] == ["w/model.int8.sm87.engine", "w/net.int8.sm87.engine"]
    assert str(manifest_path(engines[0])) == "w/model.int8.sm87.engine.json"
    assert Workspace().root == Path("artifacts")


def test_engines_of_the_own_model_are_listed_without_manifests_and_half_written_ones(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    assert Workspace(tmp_path / "none").engines() == place.engines() == []
    own = [place.engine(place.onnx, precision, "cpu") for precision in ("fp16", "int8")]
    for engine in (*own, place.engine(Path("net.onnx"), "fp16", "cpu")):
        engine.touch()
        manifest_path(engine).touch()
    with replacing(place.engine(place.onnx, "fp32", "cpu")):
        assert place.engines() == own


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("a.png", "is empty", "supply a whole one"), 1, "a.png: is empty; supply a whole one"),
        (CheckFailed("mIoU fell"), 3, "mIoU fell"),
        (
            StaleArtefact("a.engine", "GPU", "A100", "Orin", "build again"),
            3,
            "a.engine is stale: GPU was A100 when it was made and is Orin now; build again",
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error: Dlv3Error, code: int, text: str) -> None:
    assert isinstance(error, Dlv3Error)
    assert (error.exit_code, str(error)) == (code, text)
    received = pickle.loads(pickle.dumps(error))  # as from a worker process
    assert (type(received), str(received), vars(received)) == (type(error), text, vars(error))
