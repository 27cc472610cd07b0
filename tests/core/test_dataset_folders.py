"""Data set folders: which samples belong to which split, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlv3deploy.core.classes import VOC, anonymous_classes
from dlv3deploy.core.datasets import Sample, Split, open_dataset, pairs
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import write_json
from dlv3deploy.core.images import write_frame, write_mask

pytest.importorskip("cv2")

THREE = anonymous_classes(3)
Size = tuple[int, int]  # height, width


def add(folder: Path, name: str, size: Size = (6, 8), label_size: Size | None = None, value: int = 1) -> None:
    """An image `name` and its label, in images/ and labels/ of `folder`."""
    write_frame(folder / "images" / name, np.full((*size, 3), 9, np.uint8))
    label = np.full(label_size or size, value, np.uint8)
    write_mask(folder / "labels" / f"{Path(name).stem}.png", label, THREE)


def stems(root: Path, split: Split) -> list[str]:
    return [s.image.stem for s in open_dataset(root, split, THREE).samples]


def test_folders_train_and_val_hold_the_splits(tmp_path: Path) -> None:
    for split, name in (("train", "a.jpg"), ("train", "b.png"), ("val", "c.bmp")):
        add(tmp_path / split, name)
    assert stems(tmp_path, "train") == ["a", "b"]
    assert stems(tmp_path, "val") == ["c"]


def test_without_val_a_tenth_of_train_is_held_out(tmp_path: Path) -> None:
    for i in range(20):
        add(tmp_path / "train", f"{i:02d}.png")
    assert stems(tmp_path, "val") == ["09", "19"]
    assert sorted(stems(tmp_path, "train") + stems(tmp_path, "val")) == [f"{i:02d}" for i in range(20)]


def test_val_alone_is_no_training_set(tmp_path: Path) -> None:
    add(tmp_path / "val", "a.jpg")
    with pytest.raises(UserError, match="train: has no images/ folder"):
        open_dataset(tmp_path, "train", THREE)


@pytest.mark.parametrize("count", [2, 3, 9, 10, 11, 19, 20, 25, 40])
def test_a_flat_folder_is_split_without_an_image_in_both(tmp_path: Path, count: int) -> None:
    for i in range(count):
        add(tmp_path, f"{i:02d}.png")
    train, val = stems(tmp_path, "train"), stems(tmp_path, "val")
    assert sorted(train + val) == [f"{i:02d}" for i in range(count)]
    assert len(val) == max(1, count // 10)
    assert len(train) >= 1


def test_every_tenth_image_is_held_out(tmp_path: Path) -> None:
    for i in range(1, 23):
        add(tmp_path, f"{i:02d}.png")
    assert stems(tmp_path, "val") == ["10", "20"]


def test_a_single_image_is_all_there_is_for_both(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    assert stems(tmp_path, "train") == stems(tmp_path, "val") == ["a"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="holds no image for train"):
        open_dataset(tmp_path, "train", THREE)


@pytest.mark.parametrize("present", ["images", "labels", "pictures"])
def test_a_folder_of_another_form_is_refused_with_the_form(tmp_path: Path, present: str) -> None:
    (tmp_path / present).mkdir()
    with pytest.raises(UserError, match="a data set has images/ and labels/"):
        open_dataset(tmp_path, "train", THREE)
    with pytest.raises(UserError, match="is no folder"):
        open_dataset(tmp_path / "none", "train", THREE)


def test_an_image_without_label_is_named_and_all_of_them_counted(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        add(tmp_path, name)
    for name in ("b", "c"):
        (tmp_path / "labels" / f"{name}.png").unlink()
    with pytest.raises(UserError, match=r"b\.png: has no label .*labels/b\.png \(2 of 3 images"):
        open_dataset(tmp_path, "train", THREE)


def test_stray_files_and_labels_without_image_are_passed_over(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    for name in ("images/Thumbs.db", "images/.a.png", "labels/old.png", "labels/a.txt", "readme.md"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "images" / "more.png").mkdir()
    assert stems(tmp_path, "train") == ["a"]


def test_suffixes_in_capitals_are_as_good(tmp_path: Path) -> None:
    add(tmp_path, "a.JPG")
    (tmp_path / "labels" / "a.png").rename(tmp_path / "labels" / "a.PNG")
    (sample,) = open_dataset(tmp_path, "train", THREE).samples
    assert sample == Sample(tmp_path / "images" / "a.JPG", tmp_path / "labels" / "a.PNG")
    frame, label = sample.read()
    assert (frame.shape, label.shape) == ((6, 8, 3), (6, 8))


def test_two_images_that_share_a_label_are_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.k.png", "a.png"):  # the middle one stands between them, and has a label of its own
        add(tmp_path, name)
    with pytest.raises(UserError, match=r"a\.jpg and a\.png: share the label .*labels/a\.png"):
        pairs(tmp_path / "images", tmp_path / "labels")


def test_classes_come_from_the_folder_unless_they_are_given(tmp_path: Path) -> None:
    add(tmp_path, "a.png")
    with pytest.raises(UserError, match="has no classes.json"):
        open_dataset(tmp_path, "train")
    write_json(tmp_path / "classes.json", THREE.to_json())
    assert open_dataset(tmp_path, "train").classes == THREE
    assert open_dataset(tmp_path, "train", VOC).classes == VOC


@pytest.mark.parametrize("label_size", [(3, 4), (12, 16), (6, 8), (5, 7), (48, 65), (9, 9), (5, 30)])
def test_a_label_of_another_size_shows_the_same_view(tmp_path: Path, label_size: tuple[int, int]) -> None:
    add(tmp_path, "a.png", (6, 8), label_size)
    frame, label = open_dataset(tmp_path, "train", THREE).samples[0].read()
    assert frame.shape == (6, 8, 3)
    assert label.shape == label_size


@pytest.mark.parametrize(("size", "label_size"), [((60, 80), (80, 60)), ((80, 60), (60, 61)), ((90, 160), (64, 48))])
def test_a_label_that_is_turned_is_refused(tmp_path: Path, size: tuple[int, int], label_size: tuple[int, int]) -> None:
    add(tmp_path, "a.png", size, label_size)
    with pytest.raises(UserError, match="turn one of them"):
        open_dataset(tmp_path, "train", THREE).samples[0].read()


def test_checking_names_the_first_sample_that_training_cannot_use(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        add(tmp_path / "train", name)
    open_dataset(tmp_path, "train", THREE).check()
    add(tmp_path / "train", "b.png", (6, 8), (12, 16))
    with pytest.raises(UserError, match=r"b\.png is 8×6, .*b\.png is 16×12: .*one size in training"):
        open_dataset(tmp_path, "train", THREE).check()
    add(tmp_path / "train", "b.png", value=7)
    with pytest.raises(UserError, match=r"b\.png holds label id 7"):
        open_dataset(tmp_path, "train", THREE).check()
    (tmp_path / "train" / "images" / "b.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"b\.png: is not a readable picture"):
        open_dataset(tmp_path, "train", THREE).check()


def test_frames_are_those_of_the_samples_in_order(tmp_path: Path) -> None:
    for i, name in enumerate(("a.png", "b.png")):
        add(tmp_path / "val", name, (2 + i, 2 + i))
    data = open_dataset(tmp_path, "val", THREE)
    assert len(data) == 2
    assert [frame.shape for frame in (sample.read()[0] for sample in data.samples)] == [(2, 2, 3), (3, 3, 3)]
