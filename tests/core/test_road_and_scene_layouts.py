"""Cityscapes, ADE20K and CamVid: their folders, and what their label values mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_datasets as tiny

from dlv3deploy.core.classes import ADE20K, CAMVID, CITYSCAPES
from dlv3deploy.core.datasets import dataset_classes, open_dataset
from dlv3deploy.core.datasets.camvid import CAMBRIDGE, split_of
from dlv3deploy.core.errors import UserError

pytest.importorskip("cv2")


def cityscapes(root: Path, split: str, city: str, number: int, *values: int, kind: str = "labelIds") -> tuple[Path, Path]:
    stem = f"{city}_{number:06d}_000019"
    image = tiny.picture(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
    return image, tiny.ids(root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", *values)


# Names by label id, as the release's documentation lists those that are scored.
SCORED = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light", 20: "traffic sign",
    21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train",
    32: "motorcycle", 33: "bicycle",
}  # fmt: skip


def test_cityscapes_label_ids_become_the_scored_classes(tmp_path: Path) -> None:
    cityscapes(tmp_path, "train", "ulm", 1, *range(34))
    (sample,) = open_dataset(tmp_path, "train").samples
    mask = sample.read()[1].ravel()[:34].tolist()
    assert {i: CITYSCAPES.names[c] for i, c in enumerate(mask) if c != 255} == SCORED


def test_cityscapes_takes_train_ids_where_they_were_made(tmp_path: Path) -> None:
    cityscapes(tmp_path, "train", "ulm", 1, 7, 26)
    _, made = cityscapes(tmp_path, "train", "ulm", 1, 0, 18, 255, kind="labelTrainIds")
    cityscapes(tmp_path, "train", "aachen", 2, 26, 0)
    first, second = open_dataset(tmp_path, "train").samples
    assert first.image.parent.name == "aachen" and first.read()[1][0, :2].tolist() == [13, 255]
    assert second.label == made and second.read()[1][0, :3].tolist() == [0, 18, 255]


def test_cityscapes_splits_and_what_is_missing(tmp_path: Path) -> None:
    cityscapes(tmp_path, "train", "ulm", 1, 7)
    with pytest.raises(UserError, match=r"leftImg8bit/val: holds no .*_leftImg8bit\.png"):
        open_dataset(tmp_path, "val")
    _, label = cityscapes(tmp_path, "val", "bonn", 1, 7)
    assert len(open_dataset(tmp_path, "trainval")) == 2
    assert open_dataset(tmp_path, "trainval").description == "Cityscapes train and val, 2 images"
    tiny.ids(label, 40)
    with pytest.raises(UserError, match=rf"{label} holds label id 40"):
        open_dataset(tmp_path, "val").check()
    label.unlink()
    with pytest.raises(UserError, match=rf"{label}: does not exist, the label of bonn"):
        open_dataset(tmp_path, "val")


def ade(root: Path, split: str, name: str, *values: int) -> None:
    tiny.picture(root / "images" / split / f"{name}.jpg")
    tiny.ids(root / "annotations" / split / f"{name}.png", *values)


@pytest.mark.parametrize("inside", ["", "ADEChallengeData2016"])
def test_ade20k_ids_begin_at_1_and_0_is_ignored(tmp_path: Path, inside: str) -> None:
    ade(tmp_path / inside, "training", "a", 0, 1, 150, 2)
    ade(tmp_path / inside, "validation", "b", 151)
    (sample,) = open_dataset(tmp_path, "train").samples
    assert sample.read()[1][0, :5].tolist() == [255, 0, 149, 1, 1]
    assert dataset_classes(tmp_path) == ADE20K
    assert [ADE20K.names[i] for i in (0, 12, 19, 149)] == ["wall", "person", "chair", "flag"]
    with pytest.raises(UserError, match=r"b\.png holds label id 151: the data set's own ids are 0 to 150"):
        open_dataset(tmp_path, "val").check()


def test_ade20k_names_come_from_its_own_table(tmp_path: Path) -> None:
    ade(tmp_path, "training", "a", 1)
    rows = [f"{i} \t0.1\t5\t5\tname{i}, other, words" for i in range(1, 151)]
    table = tiny.text(tmp_path / "objectInfo150.txt", ["Idx\tRatio\tTrain\tVal\tName", *rows])
    assert dataset_classes(tmp_path).names == tuple(f"name{i}" for i in range(1, 151))
    tiny.text(table, ["Idx\tRatio\tTrain\tVal\tName", *rows[:-1]])
    with pytest.raises(UserError, match=r"objectInfo150\.txt: names 149 classes"):
        dataset_classes(tmp_path)
    tiny.text(table, ["Idx", "1 wall"])
    with pytest.raises(UserError, match=r"objectInfo150\.txt: is no table"):
        open_dataset(tmp_path, "train")


def segnet(root: Path, split: str, name: str, *values: int) -> None:
    tiny.picture(root / split / f"{name}.png")
    tiny.ids(root / f"{split}annot" / f"{name}.png", *values)


def test_camvid_in_segnets_folders(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        segnet(tmp_path, split, f"{split}1", 0, 10, 11)
        segnet(tmp_path, split, f"{split}2", 3)
    assert dataset_classes(tmp_path) == CAMVID
    for split in ("train", "val", "test"):
        assert [s.image.stem for s in open_dataset(tmp_path, split).samples] == [f"{split}1", f"{split}2"]
    tiny.text(tmp_path / "train.txt", ["/SegNet/CamVid/train/train2.png /SegNet/CamVid/trainannot/train2.png"])
    assert [s.image.stem for s in open_dataset(tmp_path, "train").samples] == ["train2"]
    first = open_dataset(tmp_path, "test", replace(CAMVID, ignore_index=255)).samples[0]
    assert first.read()[1][0, :3].tolist() == [0, 10, 255]
    segnet(tmp_path, "val", "val2", 12)
    with pytest.raises(UserError, match=r"valannot/val2\.png holds label id 12"):
        open_dataset(tmp_path, "val").check()


def cambridge(root: Path, stem: str, pixels: list[tuple[int, int, int]]) -> None:
    tiny.picture(root / "701_StillsRaw_full" / f"{stem}.png", (1, len(pixels)))
    tiny.colours(root / "LabeledApproved_full" / f"{stem}_L.png", np.array([pixels]))


def test_camvids_own_colours_become_the_11_classes(tmp_path: Path) -> None:
    pixels = [(128, 128, 128), (64, 0, 64), (128, 0, 192), (192, 128, 192), (192, 128, 64), (192, 0, 192), (0, 0, 0)]
    cambridge(tmp_path, "0006R0_f00930", pixels)
    (sample,) = open_dataset(tmp_path, "train").samples
    mask = sample.read()[1][0].tolist()
    assert [CAMVID.names[i] for i in mask[:-1]] == ["Sky", "Building", "Road", "Car", "Pedestrian", "Bicyclist"]
    assert mask[-1] == CAMVID.ignore_index


def test_camvids_own_colours_are_32_with_black(tmp_path: Path) -> None:
    every = [colour for colours in CAMBRIDGE.values() for colour in colours]
    assert len(set(every)) == len(every) == 31 and (0, 0, 0) not in every
    assert set(CAMBRIDGE) == set(CAMVID.names)


def test_camvids_own_release_is_split_by_sequence_and_frame(tmp_path: Path) -> None:
    stems = {
        "train": ["0001TP_008520", "0006R0_f00930", "0016E5_07920", "0016E5_08190"],
        "val": ["0016E5_07959", "0016E5_08159"],
        "test": ["0001TP_008550", "Seq05VD_f00000"],
    }
    for stem in (stem for group in stems.values() for stem in group):
        cambridge(tmp_path, stem, [(128, 0, 0)])
    for split, expected in stems.items():
        assert [s.image.stem for s in open_dataset(tmp_path, split).samples] == expected  # type: ignore[arg-type]  # a text of a loop


def test_stray_colours_are_ignored_and_a_label_full_of_them_is_named(tmp_path: Path) -> None:
    cambridge(tmp_path, "0006R0_f00930", [(1, 2, 3)] + [(128, 0, 0)] * 199)
    (sample,) = open_dataset(tmp_path, "train").samples
    assert sample.read()[1][0, :2].tolist() == [11, 1]
    cambridge(tmp_path, "0006R0_f00930", [(1, 2, 3)] * 3 + [(128, 0, 0)] * 97)
    with pytest.raises(UserError, match=r"0006R0_f00930_L\.png has colour 1,2,3: 3% of its pixels"):
        open_dataset(tmp_path, "train").check()
    tiny.ids(tmp_path / "LabeledApproved_full" / "0006R0_f00930_L.png", 1)
    with pytest.raises(UserError, match="holds L pixels, not colours"):
        open_dataset(tmp_path, "train").check()


@pytest.mark.real_data
def test_the_split_of_the_release_is_that_of_segnet(shared: Path) -> None:
    for split, count in (("train", 367), ("val", 101)):
        found = [path.stem for path in (shared / "data" / "camvid" / split / "images").iterdir()]
        assert len(found) == count
        assert {split_of(stem) for stem in found} == {split}
    assert split_of("0001TP_008550") == split_of("Seq05VD_f00000") == "test"
