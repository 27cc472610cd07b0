"""Bad input ends with one clear line and the right exit code; nothing is lost and nothing half-written is left."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import CLASSES, tiny_deeplab, write_tiny
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.core.workspace import manifest_path
from dlv3deploy.engines.manifest import Manifest, Timing

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")


def dlv3deploy(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def refused(*arguments: object, code: int = 1) -> str:
    """The one line that the command ends with."""
    done = dlv3deploy(*arguments)
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in done.output
    return lines[0]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- sources ---------------------------------------------------------------------------------------------------------


def test_a_camera_that_is_not_there(work: Path) -> None:
    line = refused("run", "--workspace", work, "--camera", 97, "--sink", "none")
    assert "97" in line
    assert "/dev/video" in line


@pytest.mark.parametrize("content", [b"", b"this is no video", bytes(range(256)) * 40])
def test_an_unreadable_video_keeps_the_older_result(work: Path, tmp_path: Path, content: bytes) -> None:
    video, result = tmp_path / "bad.mp4", tmp_path / "result.mp4"
    video.write_bytes(content)
    result.write_bytes(b"an older, good file")
    assert "bad.mp4" in refused("run", "--workspace", work, "--source", video, "--sink", result)
    assert result.read_bytes() == b"an older, good file"


def test_a_source_that_does_not_exist(work: Path) -> None:
    assert "nowhere.mp4" in refused("run", "--workspace", work, "--source", "nowhere.mp4", "--sink", "none")


def test_no_source_and_a_second_one_that_is_not_there(work: Path) -> None:
    assert "--camera 0" in refused("run", "--workspace", work)
    assert "a.mp4: does not exist" in refused("run", "--workspace", work, "--camera", 0, "--source", "a.mp4")


def test_a_window_without_a_screen(work: Path, data: Path, monkeypatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    line = refused("run", "--workspace", work, "--source", next((data / "val" / "images").iterdir()), "--sink", "window")
    assert "--sink" in line


# --- data sets -------------------------------------------------------------------------------------------------------


def test_a_corrupt_image_in_a_data_set_is_named(work: Path, data: Path) -> None:
    image = sorted((data / "val" / "images").iterdir())[2]
    image.write_bytes(image.read_bytes()[:300])
    assert image.name in refused("evaluate", "--workspace", work, "--data", data)


def test_a_missing_label_is_named(work: Path, data: Path) -> None:
    label = sorted((data / "val" / "labels").iterdir())[1]
    label.unlink()
    assert label.name in refused("evaluate", "--workspace", work, "--data", data)


def test_labels_with_ids_out_of_range_are_named_with_the_rule(work: Path, data: Path) -> None:
    label = sorted((data / "val" / "labels").iterdir())[0]
    pixels = cv2.imread(str(label), cv2.IMREAD_GRAYSCALE)
    pixels[0, 0] = CLASSES + 3
    cv2.imwrite(str(label), pixels)
    line = refused("evaluate", "--workspace", work, "--data", data)
    assert str(CLASSES + 3) in line
    assert f"0 to {CLASSES - 1}" in line
    assert label.name in line


def test_a_folder_that_is_no_data_set(work: Path, tmp_path: Path) -> None:
    assert "images/" in refused("evaluate", "--workspace", work, "--data", tmp_path)


def test_training_refuses_bad_labels_before_the_first_step(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    label = sorted((data / "train" / "labels").iterdir())[7]
    cv2.imwrite(str(label), cv2.imread(str(label), cv2.IMREAD_GRAYSCALE) + 200)
    line = refused("train", data, "--workspace", tmp_path / "w", "--steps", 5, "--crop", "32x32", "--backbone", "resnet18")
    assert label.name in line
    assert not (tmp_path / "w" / "model.safetensors").exists()


@pytest.mark.parametrize("size", ["100x96", "64x90", "0x0", "banana", "64x64x64"])
def test_sizes_that_the_network_does_not_take(data: Path, tmp_path: Path, size: str) -> None:
    pytest.importorskip("torch")
    line = refused("train", data, "--workspace", tmp_path / "w", "--size", size)
    if size == "100x96":
        assert "96 or 97 or 112" in line


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_truncated_onnx_file(work: Path, data: Path, share: float) -> None:
    whole = (work / "model.onnx").read_bytes()
    (work / "model.onnx").write_bytes(whole[: int(len(whole) * share)])
    for command in (("build-engine",), ("evaluate", work / "model.onnx", "--data", data), ("inspect", work / "model.onnx")):
        assert "model.onnx" in refused(*command, "--workspace", work)
    assert set(tree(work)) == {"model.onnx"}


def test_a_checkpoint_of_another_program(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    pytest.importorskip("torch")
    (tmp_path / "w").mkdir()
    path = tmp_path / "w" / "model.safetensors"
    save_file({"conv.weight": np.zeros((1, 3, 3, 3), np.float32)}, str(path))
    for command in (("export",), ("evaluate", path), ("inspect", path)):
        assert "another program" in refused(*command, "--workspace", tmp_path / "w")


def test_an_engine_from_another_model(work: Path, data: Path) -> None:
    assert dlv3deploy("build-engine", "--workspace", work).exit_code == 0
    engine = work / "model.fp32.cpu.engine"
    write_tiny(work / "model.onnx", seed=3)
    line = refused("evaluate", engine, "--workspace", work, "--data", data, code=3)
    assert "sha256 of model.onnx" in line
    assert "dlv3deploy build-engine" in line


def test_a_file_that_is_no_model(work: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert ".onnx" in refused("evaluate", tmp_path / "notes.txt", "--workspace", work)


def test_an_empty_workspace_says_how_to_begin(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    here = f"--workspace {tmp_path / 'empty'}"
    for command, first in (
        (("export",), "train DATA"),
        (("build-engine",), "export"),
        (("evaluate",), "train DATA"),
        (("run", "--camera", 0), "train DATA"),
        (("inspect",), "train DATA"),
    ):
        assert f"dlv3deploy {first} {here}" in refused(*command, "--workspace", tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_a_workspace_that_holds_engines_of_other_files_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.fp32.cpu.engine").touch()
    line = refused("evaluate", "--workspace", tmp_path, "--data", data)
    assert f"holds no model of its own, only engines of other files; name one: {tmp_path / 'theirs.fp32.cpu.engine'}" in line


def test_int8_without_images_says_which_option_gives_them(work: Path) -> None:
    assert "--images" in refused("build-engine", "--int8", "--workspace", work)


def test_int8_with_a_folder_without_pictures(work: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "no picture" in refused("build-engine", "--int8", "--workspace", work, "--images", tmp_path / "none")


def test_two_precisions_at_once(work: Path) -> None:
    assert "exclude each other" in refused("build-engine", "--int8", "--fp16", "--workspace", work)


def test_a_self_describing_model_is_not_described_again(work: Path, data: Path) -> None:
    assert "describes itself" in refused(
        "evaluate", work / "model.onnx", "--workspace", work, "--data", data, "--classes", "voc"
    )


def test_a_foreign_model_with_the_wrong_number_of_classes(work: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign.onnx").write_bytes(tiny_deeplab().SerializeToString())
    line = refused("evaluate", tmp_path / "foreign.onnx", "--workspace", work, "--data", data, "--classes", "voc")
    assert "21 classes" in line
    assert f"{CLASSES} channels" in line


def test_a_foreign_model_is_scored_as_the_command_line_describes_it(work: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign.onnx").write_bytes(tiny_deeplab().SerializeToString())
    foreign = dlv3deploy("evaluate", tmp_path / "foreign.onnx", "--data", data, "--classes", data / "classes.json", "--json")
    own = dlv3deploy("evaluate", work / "model.onnx", "--data", data, "--json")
    assert foreign.exit_code == 0, foreign.stderr
    scores = [json.loads(done.stdout) for done in (foreign, own)]
    assert scores[0]["model"] != scores[1]["model"]
    assert scores[0] | {"model": ""} == scores[1] | {"model": ""}
    assert "assumed" in foreign.stderr


def test_a_workspace_that_cannot_be_written(work: Path, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    line = refused("build-engine", work / "model.onnx", "--workspace", blocker / "inside")
    assert "could not be written" in line


def test_a_size_that_a_fixed_model_does_not_take(work: Path, data: Path) -> None:
    assert "fixed at 64×96" in refused(
        "evaluate", work / "model.onnx", "--workspace", work, "--data", data, "--size", "128x128"
    )
    assert "fixed at 64×96" in refused("build-engine", "--workspace", work, "--size", "128x128")


def test_ctrl_c_exits_130(work: Path, data: Path, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dlv3deploy.measure.evaluate.evaluate", interrupt)
    done = dlv3deploy("evaluate", work / "model.onnx", "--workspace", work, "--data", data)
    assert done.exit_code == 130
    assert done.stderr.strip().endswith("interrupted")


def test_building_another_model_leaves_the_workspaces_own_artefacts_alone(work: Path, data: Path, tmp_path: Path) -> None:
    images = data / "train" / "images"
    assert dlv3deploy("build-engine", "--int8", "--workspace", work, "--images", images).exit_code == 0
    before = tree(work)
    write_tiny(tmp_path / "other.onnx", seed=4)
    assert dlv3deploy("build-engine", tmp_path / "other.onnx", "--int8", "--workspace", work, "--images", images).exit_code == 0
    after = tree(work)
    assert {name: after[name] for name in before} == before
    assert "other.int8.cpu.engine" in after


def test_a_run_never_writes_masks_over_labels(work: Path, data: Path) -> None:
    labels = data / "val" / "labels"
    from PIL import Image

    for path in labels.iterdir():  # as another program writes them
        Image.fromarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)).save(path)
    before = tree(labels)
    line = refused("run", work / "model.onnx", "--source", data / "val" / "images", "--sink", f"{labels}/")
    assert "folder of their own" in line
    assert tree(labels) == before


def test_masks_of_an_earlier_run_are_replaced(work: Path, data: Path, tmp_path: Path) -> None:
    for _ in range(2):
        done = dlv3deploy("run", work / "model.onnx", "--source", data / "val" / "images", "--sink", f"{tmp_path}/masks/")
        assert done.exit_code == 0, done.stderr


def test_data_with_other_classes_than_the_models_is_not_scored(work: Path, data: Path) -> None:
    described = json.loads((data / "classes.json").read_text())
    described["names"] = described["names"][::-1]
    (data / "classes.json").write_text(json.dumps(described))
    assert "the model's classes are sky" in refused("evaluate", work / "model.onnx", "--data", data)


@pytest.mark.parametrize("option", ["--mean", "--std"])
def test_units_of_0_to_1_are_refused_with_the_values_in_pixels(work: Path, data: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "foreign.onnx").write_bytes(tiny_deeplab().SerializeToString())
    line = refused("evaluate", tmp_path / "foreign.onnx", "--data", data, option, "0.5,0.5,0.5")
    assert "127.5,127.5,127.5" in line


def test_an_engine_or_a_checkpoint_is_not_taken_for_an_onnx_file(work: Path) -> None:
    assert dlv3deploy("build-engine", "--workspace", work).exit_code == 0
    assert "engine already" in refused("build-engine", work / "model.fp32.cpu.engine", "--workspace", work)
    assert "dlv3deploy export" in refused("build-engine", work / "model.safetensors", "--workspace", work)


def test_the_command_that_mends_a_stale_engine_names_its_workspace(work: Path, data: Path) -> None:
    assert dlv3deploy("build-engine", "--workspace", work).exit_code == 0
    write_tiny(work / "model.onnx", seed=3)
    line = refused("evaluate", work / "model.fp32.cpu.engine", "--data", data, code=3)
    assert f"--workspace {work}" in line


def test_another_model_called_model_onnx_does_not_become_the_workspaces_own(work: Path, data: Path, tmp_path: Path) -> None:
    assert dlv3deploy("build-engine", "--workspace", work).exit_code == 0
    before = tree(work)
    (tmp_path / "other").mkdir()
    write_tiny(tmp_path / "other" / "model.onnx", seed=4)
    assert dlv3deploy("build-engine", tmp_path / "other" / "model.onnx", "--workspace", work).exit_code == 0
    assert {name: content for name, content in tree(work).items() if name in before} == before
    done = dlv3deploy("evaluate", "--workspace", work, "--data", data, "--json")
    assert json.loads(done.stdout)["model"] == str(work / "model.fp32.cpu.engine")


def test_run_and_evaluate_take_the_fastest_engine(work: Path, data: Path) -> None:
    assert dlv3deploy("build-engine", "--workspace", work).exit_code == 0
    assert dlv3deploy("build-engine", "--int8", "--workspace", work, "--images", data / "train" / "images").exit_code == 0
    for fast, slow in (("fp32", "int8"), ("int8", "fp32")):
        for precision, latency_ms in ((fast, 1.0), (slow, 2.0)):
            engine = work / f"model.{precision}.cpu.engine"
            manifest = replace(Manifest.read(engine), timing=Timing(latency_ms, latency_ms, 3))
            manifest.write(manifest_path(engine))
        done = dlv3deploy("evaluate", "--workspace", work, "--data", data, "--json")
        assert json.loads(done.stdout)["model"] == str(work / f"model.{fast}.cpu.engine")


def test_the_demo_leaves_a_workspace_alone_that_it_did_not_make(work: Path) -> None:
    before = tree(work)
    assert "did not make" in refused("demo", "--workspace", work)
    assert tree(work) == before


def test_a_missing_library_is_named_with_the_extra_that_brings_it(work: Path) -> None:
    hidden = "import sys; sys.modules['torch'] = None; from dlv3deploy.cli import main; main()"
    (work / "model.safetensors").write_bytes(b"what only torch could export")
    program = [sys.executable, "-c", hidden, "export", "--workspace", str(work)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: this command needs torch")
    assert "dlv3deploy[train]" in done.stderr


def test_a_typo_in_classes_json_is_named(work: Path, data: Path) -> None:
    described = json.loads((data / "classes.json").read_text())
    (data / "classes.json").write_text(json.dumps({**described, "pallete": []}))
    assert "pallete" in refused("evaluate", work / "model.onnx", "--data", data)
