"""The workspace's file names, and the errors' texts and exit codes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from dlv3deploy.core.errors import CheckFailed, Dlv3Error, StaleArtefact, UserError
from dlv3deploy.core.files import replacing
from dlv3deploy.core.workspace import Workspace, by_building, by_exporting, by_training, manifest_path, report_page, report_path


def test_names_are_those_that_the_commands_promise() -> None:
    place = Workspace(Path("w"))
    own, other = place.onnx, Path("elsewhere/net.onnx")
    assert (str(place.checkpoint), str(own), str(place.training)) == ("w/model.safetensors", "w/model.onnx", "w/train")
    assert [str(place.int8_onnx(p)) for p in (own, other)] == ["w/model.int8.onnx", "w/net.int8.onnx"]
    assert [str(place.calibration(p)) for p in (own, other)] == ["w/calibration.json", "w/net.calibration.json"]
    assert [str(f(place.calibration(own))) for f in (report_path, report_page)] == [
        "w/calibration.report.json",
        "w/calibration.html",
    ]
    assert str(report_page(Path("w/page.html"))) == "w/page.html.html"
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
        assert place.engines() == own and place.engines_of_others() == [place.engine(Path("net.onnx"), "fp16", "cpu")]


def test_a_command_names_its_workspace_unless_it_is_the_default_one() -> None:
    assert Workspace().command("export") == "dlv3deploy export"
    assert (
        Workspace(Path("w")).command("train", "DATA", "--from", Path("a.b")) == "dlv3deploy train DATA --from a.b --workspace w"
    )
    assert Workspace(Path("my runs")).command("export", "a b.onnx") == "dlv3deploy export 'a b.onnx' --workspace 'my runs'"


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("artifacts/model.safetensors", "train DATA"),
        ("w/model.safetensors", "train DATA --workspace w"),
        ("w/train/best.safetensors", "train DATA"),
        ("artifacts/model.onnx", "export"),
        ("w/model.onnx", "export --workspace w"),
        ("w/other.onnx", "export --to w/other.onnx"),
        ("artifacts/model.fp32.cpu.engine", "build-engine"),
        ("w/model.fp32.cpu.engine", "build-engine --workspace w"),
        ("w/other.engine", "build-engine --to w/other.engine"),
    ],
)
def test_what_is_missing_is_made_by_a_command_that_writes_it_there(path: str, command: str) -> None:
    remedy = {".safetensors": by_training, ".onnx": by_exporting, ".engine": by_building}[Path(path).suffix]
    assert remedy(Path(path)) == f"make one with: dlv3deploy {command}"


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
