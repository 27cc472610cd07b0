"""From what the user names to a data set: where it is looked for, which layout it has, whether a model's classes fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import tiny_datasets as tiny

from dlv3deploy.core.classes import CAMVID, VOC, anonymous_classes
from dlv3deploy.core.datasets import find_root, open_dataset, own_splits, require_same_classes
from dlv3deploy.core.datasets.opening import LAYOUTS
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import write_json

pytest.importorskip("cv2")


def plain(root: Path, *names: str) -> Path:
    for name in names:
        tiny.picture(root / "images" / f"{name}.png")
        tiny.ids(root / "labels" / f"{name}.png", 0, 1)
    return root


def test_a_name_is_looked_for_here_and_then_among_the_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DLV3DEPLOY_DATA", raising=False)
    with pytest.raises(UserError, match="^voc: is no folder, and neither is data/voc;"):
        find_root("voc")
    (tmp_path / "data" / "voc").mkdir(parents=True)
    assert find_root("voc") == Path("data/voc")
    monkeypatch.setenv("DLV3DEPLOY_DATA", str(tmp_path / "sets"))
    with pytest.raises(UserError, match=f"voc: is no folder, and neither is {tmp_path}/sets/voc"):
        find_root("voc")
    (tmp_path / "sets" / "voc").mkdir(parents=True)
    assert find_root("voc") == tmp_path / "sets" / "voc"
    (tmp_path / "voc").mkdir()
    assert find_root("voc") == Path("voc")
    with pytest.raises(UserError, match=f"^{tmp_path}/none: is no folder; "):
        find_root(tmp_path / "none")


def test_layouts_do_not_take_one_another_for_their_own(tmp_path: Path) -> None:
    made = {
        "VOC": ("VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/SegmentationClass"),
        "Cityscapes": ("leftImg8bit/train", "gtFine/train"),
        "COCO": ("train2017", "val2017", "annotations"),
        "ADE20K": ("images/training", "annotations/training"),
        "CamVid": ("train", "trainannot"),
        "plain": ("images", "labels", "train/images", "val/images"),
    }
    for name, folders in made.items():
        for folder in folders:
            (tmp_path / name / folder).mkdir(parents=True)
        assert {layout.name for layout in LAYOUTS if layout.find(tmp_path / name)} == {name} - {"plain"}


def test_a_split_that_nobody_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="split 'dev': is unknown; use one of train, val, trainval, test"):
        open_dataset(plain(tmp_path, "a"), "dev", CAMVID)  # type: ignore[arg-type]  # refused


def test_plain_folders_have_train_and_val_together_and_a_test_folder(tmp_path: Path) -> None:
    plain(tmp_path / "train", "a", "b")
    plain(tmp_path / "val", "c")
    assert [s.image.stem for s in open_dataset(tmp_path, "trainval", CAMVID).samples] == ["a", "b", "c"]
    with pytest.raises(UserError, match="test: has no images/ folder"):
        open_dataset(tmp_path, "test", CAMVID)
    plain(tmp_path / "test", "d")
    assert [s.image.stem for s in open_dataset(tmp_path, "test", CAMVID).samples] == ["d"]
    assert own_splits(tmp_path) == ("train", "val")
    assert own_splits(plain(tmp_path / "flat", "a")) == ()
    assert open_dataset(tmp_path / "flat", "trainval", CAMVID).description == "flat trainval, 1 image"


def test_a_model_of_other_classes_is_refused(tmp_path: Path) -> None:
    tiny.voc(tmp_path / "voc")
    require_same_classes(tmp_path / "voc", VOC)
    with pytest.raises(UserError, match=r"^VOC in .*voc \(background, .*\): the model's classes are Sky, Building"):
        require_same_classes(tmp_path / "voc", CAMVID)
    root = plain(tmp_path / "plain", "a")
    require_same_classes(root, CAMVID)
    write_json(root / "classes.json", anonymous_classes(2).to_json())
    with pytest.raises(UserError, match=r"classes\.json \(class 0, class 1\): the model's classes are Sky"):
        require_same_classes(root, CAMVID)
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    require_same_classes(tmp_path / "coco", VOC)


def test_samples_can_be_told_apart_and_sent_to_other_processes(tmp_path: Path) -> None:
    tiny.voc(tmp_path)
    samples = open_dataset(tmp_path, "trainval").samples
    assert len(set(samples)) == 3
    again = pickle.loads(pickle.dumps(samples))
    assert again == samples
    assert (again[0].read()[1] == samples[0].read()[1]).all()
