"""Data that cannot be trained on is refused before the first step, and the file that is wrong is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from small_runs import small_plan

from dlv3deploy.core.classes import VOC
from dlv3deploy.core.datasets import open_dataset
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import read_label, write_frame, write_mask
from dlv3deploy.train import loop
from dlv3deploy.train.data_check import check_data
from dlv3deploy.train.loop import train


@pytest.fixture
def data(few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set to spoil, in a test in which no step may be made."""

    def no_step(*_: Any) -> float:
        raise AssertionError("a step was made")

    monkeypatch.setattr(loop, "update", no_step)
    shutil.copytree(few_scenes, tmp_path / "data")
    return tmp_path / "data"


def refusal(data: Path, **changes: Any) -> str:
    root = data.parent
    with pytest.raises(UserError) as raised:
        train(small_plan(data, **changes), root / "model.safetensors", root / "train")
    assert not (root / "model.safetensors").exists() and not list(root.glob("train/*.safetensors"))
    assert not (root / "train" / "state.pt").exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def bad_id(split: Path) -> Path:
    path = split / "labels" / "00001.png"
    label = read_label(path)
    label[3, 4] = 77
    Image.fromarray(label).save(path)
    return path


def cut_image(split: Path) -> Path:
    path = split / "images" / "00001.jpg"
    path.write_bytes(path.read_bytes()[:900])
    return path


def no_image(split: Path) -> Path:
    path = split / "images" / "00001.jpg"
    path.write_bytes(b"not a picture")
    return path


def cut_label(split: Path) -> Path:
    path = split / "labels" / "00001.png"
    path.write_bytes(path.read_bytes()[:200])
    return path


def colour_label(split: Path) -> Path:
    path = split / "labels" / "00001.png"
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(path)
    return path


def other_size(split: Path) -> Path:
    path = split / "labels" / "00001.png"
    Image.fromarray(cv2.resize(read_label(path), (48, 32), interpolation=cv2.INTER_NEAREST)).save(path)
    return path


def no_label(split: Path) -> Path:
    path = split / "labels" / "00001.png"
    path.unlink()
    return path


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (bad_id, "label id 77"),
        (cut_image, "is cut short"),
        (no_image, "is not a readable picture"),
        (cut_label, "00001.png"),
        (colour_label, "not class ids"),
        (other_size, "48×32"),
        (no_label, "has no label"),
    ],
)
def test_a_spoilt_file_is_named(data: Path, split: str, spoil: Callable[[Path], Path], says: str) -> None:
    path = spoil(data / split)
    message = refusal(data)
    assert str(path) in message and says in message


def test_a_refused_start_leaves_the_state_of_the_run_before_it(data: Path) -> None:
    bad_id(data / "train")
    state = data.parent / "train" / "state.pt"
    state.parent.mkdir()
    state.write_bytes(b"state")
    with pytest.raises(UserError, match="label id 77"):
        train(small_plan(data), data.parent / "model.safetensors", state.parent)
    assert state.read_bytes() == b"state"


def test_a_folder_that_is_no_data_set_is_refused(data: Path) -> None:
    shutil.rmtree(data / "val" / "images")
    assert "has no images/ folder" in refusal(data)
    shutil.rmtree(data)
    assert "is no folder" in refusal(data)


def test_backbone_weights_that_do_not_fit_are_refused(data: Path) -> None:
    missing = data.parent / "nothing.pth"
    assert f"{missing}: does not exist" in refusal(data, backbone_weights=missing)


def test_a_single_image_cannot_train_and_validate(tmp_path: Path) -> None:
    write_frame(tmp_path / "images" / "a.png", np.zeros((32, 32, 3), np.uint8))
    write_mask(tmp_path / "labels" / "a.png", np.zeros((32, 32), np.uint8), VOC)
    with pytest.raises(UserError, match="single image"):
        check_data(open_dataset(tmp_path, "train", VOC), open_dataset(tmp_path, "val", VOC), tmp_path / "checked")


@pytest.mark.parametrize(
    ("shared", "says"), [(1, "to validate on; take it out of one"), (2, ", as is 1 other;"), (3, ", as are 2 others;")]
)
def test_an_image_on_both_sides_is_named_though_its_label_is_another(
    few_scenes: Path, tmp_path: Path, shared: int, says: str
) -> None:
    data = shutil.copytree(few_scenes, tmp_path / "data")
    images = sorted((data / "train" / "images").iterdir())[:shared]
    for image in images:
        link = data / "val" / "images" / image.name
        link.unlink(missing_ok=True)
        link.symlink_to(image)
        shutil.copy(data / "train" / "labels" / f"{image.stem}.png", data / "val" / "labels")
    with pytest.raises(UserError, match="is among the images to train on and those to validate on") as raised:
        check_data(open_dataset(data, "train"), open_dataset(data, "val"), tmp_path / "checked")
    assert str(raised.value).startswith(str(images[0])) and says in str(raised.value)


def test_classes_that_no_label_holds_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        write_frame(tmp_path / "images" / f"{name}.png", np.zeros((32, 32, 3), np.uint8))
        write_mask(tmp_path / "labels" / f"{name}.png", np.zeros((32, 32), np.uint8), VOC)
    check_data(open_dataset(tmp_path, "train", VOC), open_dataset(tmp_path, "val", VOC), tmp_path / "checked")
    said = capsys.readouterr().err
    assert "training on 1 images, validating on 1 others" in said
    assert "no training label holds aeroplane, bicycle" in said


def test_labels_that_count_nowhere_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        write_frame(tmp_path / "images" / f"{name}.png", np.zeros((32, 32, 3), np.uint8))
        write_mask(tmp_path / "labels" / f"{name}.png", np.full((32, 32), 255, np.uint8), VOC)
    with pytest.raises(UserError, match="nothing but the ignored id 255"):
        check_data(open_dataset(tmp_path, "train", VOC), open_dataset(tmp_path, "val", VOC), tmp_path / "checked")
