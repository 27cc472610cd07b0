"""What checking a data set tells, how the report is kept, and what follows from it: repeats, weights, a picture."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlv3deploy.core.classes import CAMVID, VOC, Classes, anonymous_classes, palette_for
from dlv3deploy.core.datasets import HARD_CLASSES, DataReport, Dataset, class_weights, open_dataset, samples_picture
from dlv3deploy.core.datasets import dataset as dataset_module
from dlv3deploy.core.datasets.report import Finding
from dlv3deploy.core.datasets.report_cache import cache_path
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import write_frame, write_mask

pytest.importorskip("cv2")

FOUR = Classes(("road", "car", "tree", "bird"), palette_for(4))
LABELS = {"a": [[0, 0, 1, 255]], "b": [[0, 2, 2, 2]], "c": [[0, 0, 0, 0], [1, 255, 255, 255]]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images and labels for training, one for validation."""
    for name, rows in LABELS.items():
        add(tmp_path / "data" / "train", name, rows)
    add(tmp_path / "data" / "val", "d", [[0]])
    return tmp_path / "data"


def add(folder: Path, name: str, rows: list[list[int]]) -> None:
    label = np.array(rows, np.uint8)
    write_frame(folder / "images" / f"{name}.png", np.full((*label.shape, 3), 9, np.uint8))
    write_mask(folder / "labels" / f"{name}.png", label, FOUR)


def opened(root: Path) -> Dataset:
    return open_dataset(root, "train", FOUR)


def test_the_report_counts_images_sizes_pixels_and_what_is_ignored(root: Path) -> None:
    report = opened(root).check()
    assert report.images == 3
    assert report.sizes == ((1, 4, 2), (2, 4, 1))
    assert report.pixels == (7, 2, 3, 0)
    assert report.ignored == 4 and report.ignored_share == 4 / 16 and report.labelled == 12
    assert report.images_with == (3, 2, 1, 0)
    assert report.pixels_around == (3 + 4 + 5, 3 + 5, 4, 0)
    assert report.absent == ("bird",)
    assert report.holding(["car"]) == (True, False, True)
    assert report.holding(["tree", "car"]) == (True, True, True)
    with pytest.raises(UserError, match="class 'dog': is none of this data set's; its classes are road, car"):
        report.holding(["dog"])


def test_the_report_is_said_to_people_and_to_programs(root: Path) -> None:
    report = opened(root).check()
    lines = report.lines()
    assert lines[0] == "3 images of width×height 2× 4×1, 1× 4×2; 25.0% of the pixels ignored"
    assert [line.split() for line in lines[2:]] == [
        ["road", "58.33%", "3"],
        ["car", "16.67%", "2"],
        ["tree", "25.00%", "1"],
        ["bird", "0.00%", "0"],
    ]
    data = report.to_json()
    assert data["classes"]["tree"] == {"pixels": 3, "share": 0.25, "images": 1}
    assert data["sizes"][1] == {"height": 2, "width": 4, "images": 1}
    assert data["absent"] == ["bird"] and data["ignored_share"] == 0.25


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the samples that are read, as they are read."""
    names: list[str] = []
    real = dataset_module.Sample.read

    def counted(sample: dataset_module.Sample) -> object:
        names.append(sample.image.stem)
        return real(sample)

    monkeypatch.setattr(dataset_module.Sample, "read", counted)
    return names


def test_a_kept_report_spares_reading_until_a_file_changes(root: Path, tmp_path: Path, reads: list[str]) -> None:
    cache = tmp_path / "cache"
    first = opened(root).check(cache)
    assert sorted(reads) == ["a", "b", "c"]
    assert opened(root).check(cache) == first
    assert len(reads) == 3
    label = root / "train" / "labels" / "b.png"
    os.utime(label, ns=(1, 1))
    assert opened(root).check(cache) == first
    assert len(reads) == 6
    add(root / "train", "b", [[0, 1, 1, 1]])
    assert opened(root).check(cache).pixels == (7, 5, 0, 0)
    add(root / "train", "e", [[3]])
    assert opened(root).check(cache).images == 4
    assert open_dataset(root, "train", anonymous_classes(4)).check(cache).names[0] == "class 0"


def test_a_kept_report_does_not_hide_a_file_that_is_gone_or_damaged(root: Path, tmp_path: Path) -> None:
    cache, data = tmp_path / "cache", opened(root)
    data.check(cache)
    image = root / "train" / "images" / "b.png"
    image.write_bytes(image.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"images/b\.png: is cut short"):
        data.check(cache)
    image.unlink()
    with pytest.raises(UserError, match=r"images/b\.png: cannot be read"):
        data.check(cache)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"fingerprint": "x"}', "null"])
def test_a_damaged_kept_report_is_made_again(root: Path, tmp_path: Path, text: str) -> None:
    cache, data = tmp_path / "cache", opened(root)
    report = data.check(cache)
    kept = cache_path(cache, root, "train")
    whole = kept.read_text()
    kept.write_text(text)
    assert data.check(cache) == report
    assert kept.read_text() == whole
    kept.write_text(whole.replace('"held"', '"hold"'))
    assert data.check(cache) == report
    kept.write_text(whole.replace('"images": 3', '"images": 4'))
    assert data.check(cache) == report


def test_splits_and_data_sets_keep_their_reports_apart(root: Path, tmp_path: Path, reads: list[str]) -> None:
    cache, val = tmp_path / "cache", open_dataset(root, "val", FOUR)
    for _ in range(2):
        assert opened(root).check(cache).images == 3
        assert val.check(cache).images == 1
    assert len(reads) == 4


def test_images_with_a_hard_class_come_again(root: Path) -> None:
    data = opened(root)
    report = data.check()
    names = [s.image.stem for s in data.repeating(["car"], report).samples]
    assert names == ["a", "b", "c", "a", "c"]
    assert [s.image.stem for s in data.repeating(["tree", "car"], report, 3).samples] == ["a", "b", "c"] * 3
    assert data.repeating(["bird"], report) == data.repeating([], report) == data.repeating(["car"], report, 1) == data
    assert data.repeating(["car"], report).description == "data train, 3 images; 2 images with car come 2 times"
    with pytest.raises(UserError, match="class 'dog'"):
        data.repeating(["dog"], report)
    with pytest.raises(UserError, match="0 times"):
        data.repeating(["car"], report, 0)
    with pytest.raises(UserError, match="a report of 1 images: the data set has 3"):
        data.repeating(["car"], open_dataset(root, "val", FOUR).check())


def test_the_papers_hard_classes_are_vocs() -> None:
    assert len(HARD_CLASSES) == 5 and set(HARD_CLASSES) < set(VOC.names)


def test_median_frequency_weights_are_those_worked_out_by_hand(root: Path) -> None:
    """Frequencies: road 7/12, car 2/8, tree 3/4, so the median is 7/12 and raw weights are 1, 7/3 and 7/9."""
    weights = class_weights(opened(root).check(), "median-frequency")
    raw = np.array([1, 7 / 3, 7 / 9])
    mean = (7 * raw[0] + 2 * raw[1] + 3 * raw[2]) / 12
    assert weights.dtype == np.float32
    assert weights == pytest.approx([*(raw / mean), 1.0], rel=1e-6)


@given(st.lists(st.lists(st.integers(0, 10_000), min_size=4, max_size=4), min_size=1, max_size=6))
def test_the_mean_weight_of_labelled_pixels_is_1(images: list[list[int]]) -> None:
    findings = [Finding(200, 200, np.array(counts + [0] * 252, np.int64)) for counts in images]
    report = DataReport.collect(findings, FOUR.names)
    weights = class_weights(report, "median-frequency").astype(np.float64)
    assert (weights > 0).all()
    if report.labelled:
        assert (weights * report.pixels).sum() / report.labelled == pytest.approx(1, rel=1e-5)
    assert class_weights(report, "none").tolist() == [1, 1, 1, 1]


def test_an_unknown_rule_for_weights_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match="class weights 'loud': are unknown; use one of none, median-frequency"):
        class_weights(opened(root).check(), "loud")  # type: ignore[arg-type]  # refused


def colours_in(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.unique(picture.reshape(-1, 3)[:, ::-1], axis=0).tolist()}


def test_the_picture_shows_images_labels_and_the_classes_that_occur(tmp_path: Path) -> None:
    for i in range(5):
        write_frame(tmp_path / "images" / f"{i}.png", np.full((30, 40, 3), (40 + i, 50, 60), np.uint8))
        write_mask(tmp_path / "labels" / f"{i}.png", np.full((30, 40), i % 2, np.uint8), VOC)
    data = open_dataset(tmp_path, "train", VOC)
    assert len(data) == 4
    seen = colours_in(samples_picture(data, 12))
    assert {(60, 50, 40 + i) for i in range(4)} <= seen
    assert {VOC.palette[0], VOC.palette[1]} <= seen and VOC.palette[2] not in seen
    one = colours_in(samples_picture(data, 1))
    assert (60, 50, 40) in one and (60, 50, 41) not in one and VOC.palette[1] not in one
    with pytest.raises(UserError, match="a picture of 0 samples"):
        samples_picture(data, 0)


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (1000, 1500)])
def test_pictures_of_any_size_fit_in(tmp_path: Path, size: tuple[int, int]) -> None:
    write_frame(tmp_path / "images" / "a.png", np.full((*size, 3), 9, np.uint8))
    write_mask(tmp_path / "labels" / "a.png", np.full(size, 255, np.uint8), VOC)
    picture = samples_picture(open_dataset(tmp_path, "train", VOC))
    assert picture.dtype == np.uint8 and picture.flags.c_contiguous
    assert picture.shape[0] < 400 and picture.shape[1] < 700


def test_the_picture_names_a_damaged_file(root: Path) -> None:
    (root / "train" / "labels" / "b.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"labels/b\.png: is no whole PNG file"):
        samples_picture(opened(root))


@pytest.mark.real_data
def test_camvids_report_is_what_its_labels_hold(shared: Path) -> None:
    from PIL import Image

    root = shared / "data" / "camvid"
    for split, images in (("train", 367), ("val", 101)):
        report = open_dataset(root, split, CAMVID).check()  # type: ignore[arg-type]  # a text of a loop
        histograms = []
        for path in (root / split / "labels").iterdir():
            with Image.open(path) as label:
                histograms.append(label.histogram()[:256])
        total = np.sum(histograms, axis=0)
        assert report.images == len(histograms) == images
        assert report.sizes == ((360, 480, images),)
        assert report.pixels == tuple(total[:11]) and report.ignored == total[11]
        assert report.images_with == tuple((np.array(histograms)[:, :11] > 0).sum(axis=0))


@pytest.mark.real_data
def test_vocs_squashed_images_are_opened_and_refused_for_training(shared: Path) -> None:
    root = shared / "data" / "voc"
    assert len(open_dataset(root, "trainval", VOC)) == 220
    with pytest.raises(UserError, match=r"images/2007_000042\.png is 274×274, .*one size in training"):
        open_dataset(root, "train", VOC).check()
