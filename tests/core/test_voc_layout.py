"""PASCAL VOC's devkit and SBD: which images train, which validate, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_datasets as tiny

from dlv3deploy.core.classes import VOC, anonymous_classes
from dlv3deploy.core.datasets import Split, dataset_classes, open_dataset
from dlv3deploy.core.errors import UserError

pytest.importorskip("cv2")


def stems(root: Path, split: Split) -> list[str]:
    return [sample.image.stem for sample in open_dataset(root, split).samples]


def test_the_devkit_is_found_from_any_folder_above_it(tmp_path: Path) -> None:
    base = tiny.voc(tmp_path / "TrainVal")
    for root in (base, base.parent, base.parent.parent, tmp_path):
        assert stems(root, "train") == ["a", "b"]
        assert dataset_classes(root) == VOC


def test_splits_are_those_of_the_lists_in_their_order(tmp_path: Path) -> None:
    base = tiny.voc(tmp_path, train=("b", "a"), val=("d", "c"))
    tiny.picture(base / "JPEGImages" / "unlabelled.jpg")
    assert stems(tmp_path, "train") == ["b", "a"]
    assert stems(tmp_path, "val") == ["d", "c"]
    assert stems(tmp_path, "trainval") == ["b", "a", "d", "c"]
    assert open_dataset(tmp_path, "val").description == "VOC 2012 val, 2 images"
    with pytest.raises(UserError, match="has no test labels here; its splits are train, val, trainval"):
        open_dataset(tmp_path, "test")


def test_labels_are_the_ids_of_the_palette_files(tmp_path: Path) -> None:
    base = tiny.voc(tmp_path)
    from PIL import Image

    label = base / "SegmentationClass" / "a.png"
    with Image.open(label) as grey:
        indexed = Image.fromarray(np.array(grey))
    indexed.putpalette([value for i in range(256) for value in (i, 0, 255 - i)])
    indexed.save(label)
    _, mask = open_dataset(tmp_path, "train").samples[0].read()
    assert mask[0].tolist() == [1, 255, 0, 0, 0, 0, 0, 0]
    _, mask = open_dataset(tmp_path, "train", replace(VOC, ignore_index=77)).samples[0].read()
    assert mask[0].tolist() == [1, 77, 0, 0, 0, 0, 0, 0]


def test_sbd_adds_what_voc_neither_trains_nor_validates_on(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    tiny.voc(tmp_path, train=("a", "b"), val=("c", "d"))
    base = tiny.sbd(tmp_path, train=("b", "c", "e"), val=("d", "f", "a"))
    data = open_dataset(tmp_path, "train")
    assert [s.image.stem for s in data.samples] == ["a", "b", "e", "f"]
    assert [s.label.suffix for s in data.samples] == [".png", ".png", ".mat", ".mat"]
    assert data.description == "VOC 2012 trainaug, 4 images"
    assert data.samples[2].image == base / "img" / "e.jpg"
    assert data.samples[2].read()[1][0, :3].tolist() == [5, 0, 0]
    assert data.check().pixels[5] == 2
    assert stems(tmp_path, "val") == ["c", "d"]
    assert stems(tmp_path, "trainval") == ["a", "b", "c", "d"]


def test_sbd_takes_the_picture_from_voc_where_it_is_there(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    base = tiny.voc(tmp_path)
    tiny.sbd(tmp_path, train=("e",), val=("f",))
    own = tiny.picture(base / "JPEGImages" / "e.jpg")
    assert [s.image for s in open_dataset(tmp_path, "train").samples][2] == own


@pytest.mark.parametrize("damage", [b"", b"no MATLAB file", "cut", "flipped"])
def test_a_damaged_matlab_file_is_named(tmp_path: Path, damage: bytes | str) -> None:
    pytest.importorskip("scipy")
    tiny.voc(tmp_path)
    label = tiny.sbd(tmp_path, train=("e",), val=("f",)) / "cls" / "e.mat"
    whole = label.read_bytes()
    changed = {"cut": whole[: len(whole) // 2], "flipped": whole[:130] + bytes(20) + whole[150:]}
    label.write_bytes(damage if isinstance(damage, bytes) else changed[damage])
    with pytest.raises(UserError, match=r"cls/e\.mat: is not a readable label"):
        open_dataset(tmp_path, "train").check()


def test_a_matlab_file_of_something_else_is_named(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    tiny.voc(tmp_path)
    label = tiny.sbd(tmp_path, train=("e",), val=("f",)) / "cls" / "e.mat"
    io.savemat(label, {"GTcls": {"Segmentation": np.zeros((2, 3, 4))}})
    with pytest.raises(UserError, match=r"e\.mat: holds float64 \(2, 3, 4\)"):
        open_dataset(tmp_path, "train").check()


@pytest.mark.parametrize("line", ["{}", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png"])
@pytest.mark.parametrize("name", ["ImageSets/Segmentation/trainaug.txt", "train_aug.txt"])
def test_converted_trainaug_labels_are_taken_and_never_hold_an_image_of_val(tmp_path: Path, name: str, line: str) -> None:
    base = tiny.voc(tmp_path, train=("a", "b"), val=("c",))
    for image in "abce":
        tiny.picture(base / "JPEGImages" / f"{image}.jpg")
        tiny.ids(base / "SegmentationClassAug" / f"{image}.png", 7)
    tiny.text(base / name, [line.format(image) for image in "abce"])
    data = open_dataset(tmp_path, "train")
    assert [s.image.stem for s in data.samples] == ["a", "b", "e"]
    assert data.check().pixels[7] == 3 * 48
    assert data.description == "VOC 2012 trainaug, 3 images"


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClass"])
def test_a_listed_file_that_is_not_there_is_named_at_once(tmp_path: Path, folder: str) -> None:
    base = tiny.voc(tmp_path)
    missing = next(base.glob(f"{folder}/b.*"))
    missing.unlink()
    with pytest.raises(UserError, match=f"{folder}/{missing.name}: does not exist"):
        open_dataset(tmp_path, "train")


def test_a_list_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    base = tiny.voc(tmp_path)
    listing = base / "ImageSets" / "Segmentation" / "val.txt"
    listing.write_text(" \n\n")
    with pytest.raises(UserError, match=r"val\.txt: names no image"):
        open_dataset(tmp_path, "val")
    listing.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"val\.txt: is not a readable list"):
        open_dataset(tmp_path, "val")
    listing.unlink()
    with pytest.raises(UserError, match=r"val\.txt: does not exist"):
        open_dataset(tmp_path, "val")


def test_an_id_that_voc_does_not_have_is_named_with_its_file(tmp_path: Path) -> None:
    base = tiny.voc(tmp_path)
    tiny.ids(base / "SegmentationClass" / "b.png", 21, 200, 0)
    with pytest.raises(UserError, match=r"b\.png holds label ids 21, 200: the data set's own ids are 0 to 20, 255"):
        open_dataset(tmp_path, "train").check()


@pytest.mark.parametrize("damaged", ["JPEGImages/b.jpg", "SegmentationClass/b.png"])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, damaged: str) -> None:
    path = tiny.voc(tmp_path) / damaged
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=f"{damaged}: is "):
        open_dataset(tmp_path, "train").check()


def test_classes_of_another_number_are_refused_and_names_may_differ(tmp_path: Path) -> None:
    tiny.voc(tmp_path)
    renamed = anonymous_classes(21)
    assert open_dataset(tmp_path, "train", renamed).classes == renamed
    with pytest.raises(UserError, match="3 classes for .* it is VOC, whose labels have 21"):
        open_dataset(tmp_path, "train", anonymous_classes(3))
