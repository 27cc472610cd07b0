"""COCO 2017: three kinds of labels, its own classes and VOC's, and which images are kept for pretraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_datasets as tiny
from hypothesis import given
from hypothesis import strategies as st

from dlv3deploy.core.classes import COCO_STUFF, VOC
from dlv3deploy.core.datasets import dataset_classes, open_dataset
from dlv3deploy.core.datasets.coco import VOC_OF_COCO
from dlv3deploy.core.datasets.panoptic import segment_numbers
from dlv3deploy.core.errors import UserError

pytest.importorskip("cv2")

CATEGORIES = [
    {"id": 1, "name": "person"},
    {"id": 5, "name": "airplane"},
    {"id": 16, "name": "bird"},
    {"id": 8, "name": "truck"},
    {"id": 187, "name": "sky-other-merged"},
]
LARGE = (40, 50)  # 2000 pixels, so that an image can hold more than 1000 of VOC's classes
SKY, PERSON, TRUCK = 7, 300, 70_000  # numbers of segments


def stuff(root: Path, name: str, *values: int, split: str = "train") -> Path:
    tiny.picture(root / f"{split}2017" / f"{name}.jpg", LARGE)
    return tiny.ids(root / "stuffthingmaps" / f"{split}2017" / f"{name}.png", *values, size=LARGE)


def panoptic(root: Path, persons: dict[str, int], split: str = "train") -> Path:
    """Images by name with a truck of 100 pixels, a person of so many, one unlabelled pixel, and sky."""
    annotations = []
    for name, pixels in persons.items():
        tiny.picture(root / f"{split}2017" / f"{name}.jpg", LARGE)
        numbers = np.full(LARGE, SKY)
        numbers.ravel()[:100] = TRUCK
        numbers.ravel()[100 : 100 + pixels] = PERSON
        numbers.ravel()[-1] = 0
        encoded = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=2)
        tiny.colours(root / "annotations" / f"panoptic_{split}2017" / f"{name}.png", encoded)
        infos = [(SKY, 187, 1899 - pixels), (PERSON, 1, pixels), (TRUCK, 8, 100)]
        annotations.append(
            {
                "file_name": f"{name}.png",
                "image_id": 1,
                "segments_info": [{"id": i, "category_id": c, "area": a} for i, c, a in infos],
            }
        )
    data = {"categories": CATEGORIES, "annotations": annotations}
    return tiny.jsonfile(root / "annotations" / f"panoptic_{split}2017.json", data)


def rectangle(width: int, height: int, left: int = 0) -> list[list[float]]:
    right = left + width
    return [[left, 0, right, 0, right, height, left, height]]


def instances(root: Path, objects: dict[str, list[tuple[int, Any, float]]], split: str = "train") -> Path:
    """Images by name with (category, segmentation, area) of each object."""
    for name in objects:
        tiny.picture(root / f"{split}2017" / f"{name}.jpg", LARGE)
    images = [{"id": i, "file_name": f"{n}.jpg", "height": 40, "width": 50} for i, n in enumerate(objects)]
    annotations = [
        {"image_id": i, "category_id": category, "segmentation": segmentation, "area": area}
        for i, found in enumerate(objects.values())
        for category, segmentation, area in found
    ]
    data = {"categories": CATEGORIES, "images": images, "annotations": annotations}
    return tiny.jsonfile(root / "annotations" / f"instances_{split}2017.json", data)


def test_vocs_classes_all_have_a_coco_name() -> None:
    assert sorted(VOC_OF_COCO.values()) == list(range(1, 21))
    pairs = {coco: VOC.names[i] for coco, i in VOC_OF_COCO.items()}
    assert pairs["airplane"] == "aeroplane" and pairs["motorcycle"] == "motorbike" and pairs["couch"] == "sofa"
    assert pairs["potted plant"] == "pottedplant" and pairs["dining table"] == "diningtable" and pairs["tv"] == "tvmonitor"
    assert all(coco == voc for coco, voc in pairs.items() if coco in VOC.names)
    assert set(pairs) <= set(COCO_STUFF.names)


def test_the_gaps_of_coco_stuff_are_closed(tmp_path: Path) -> None:
    """Values are category ids − 1: person 1, stop sign 13 (12 is free), toothbrush 90, banner 92, wood 182."""
    stuff(tmp_path, "a", 0, 12, 89, 91, 181, 255)
    assert dataset_classes(tmp_path) == COCO_STUFF and len(COCO_STUFF) == 171
    mask = open_dataset(tmp_path, "train").samples[0].read()[1].ravel()[:6].tolist()
    assert [COCO_STUFF.names[i] for i in mask[:5]] == ["person", "stop sign", "toothbrush", "banner", "wood"]
    assert mask[:5] == [0, 11, 79, 80, 170] and mask[5] == 255
    stuff(tmp_path, "b", 11, 0)
    with pytest.raises(UserError, match=r"b\.png holds label id 11: the data set's own ids are 0 to 10, 12 to 24, "):
        open_dataset(tmp_path, "train").check()


def test_coco_stuff_in_vocs_classes_keeps_images_with_enough_of_them(tmp_path: Path) -> None:
    stuff(tmp_path, "enough", *[4] * 1001, 124)  # airplane, then stuff
    stuff(tmp_path, "too-little", *[4] * 1000, 124)
    stuff(tmp_path, "trucks", 7)
    data = open_dataset(tmp_path, "train", VOC)
    assert [s.image.stem for s in data.samples] == ["enough"]
    assert data.description == "COCO-stuff train2017 in VOC's classes, 1 image"
    report = data.check()
    assert report.pixels[VOC.names.index("aeroplane")] == 1001 and report.pixels[0] == 999
    instances(tmp_path, {"enough": [], "too-little": [(1, rectangle(1, 1), 1001)], "trucks": [(8, rectangle(1, 1), 2000)]})
    assert [s.image.stem for s in open_dataset(tmp_path, "train", VOC).samples] == ["too-little"]


def test_panoptic_labels_have_the_classes_of_their_json_file(tmp_path: Path) -> None:
    panoptic(tmp_path, {"a": 50})
    assert dataset_classes(tmp_path).names == ("person", "airplane", "bird", "truck", "sky-other-merged")
    data = open_dataset(tmp_path, "train")
    assert data.check().pixels == (50, 0, 0, 100, 1849)
    mask = data.samples[0].read()[1].ravel()
    assert mask[[0, 100, 150, -1]].tolist() == [3, 0, 4, 255]
    assert data.description == "COCO panoptic train2017, 1 image"


def test_panoptic_labels_in_vocs_classes_keep_images_with_enough_of_them(tmp_path: Path) -> None:
    panoptic(tmp_path, {"b": 1001, "a": 1000})
    (sample,) = open_dataset(tmp_path, "train", VOC).samples
    assert sample.image.stem == "b"
    counts = np.bincount(sample.read()[1].ravel(), minlength=256)
    assert counts[VOC.names.index("person")] == 1001 and counts[0] == 998 and counts[255] == 1


@given(st.integers(0, 2**24 - 1))
def test_a_segments_number_is_in_its_colour(number: int) -> None:
    red, green, blue = number.to_bytes(3, "little")
    assert segment_numbers(np.array([[[red, green, blue]]], np.uint8)).tolist() == [[number]]


def test_a_segment_that_the_json_file_does_not_know_is_named(tmp_path: Path) -> None:
    panoptic(tmp_path, {"a": 50})
    tiny.colours(tmp_path / "annotations" / "panoptic_train2017" / "a.png", np.full((*LARGE, 3), 1))
    with pytest.raises(UserError, match=r"panoptic_train2017/a\.png has segment 65793"):
        open_dataset(tmp_path, "train").check()


def test_objects_alone_are_enough_for_vocs_classes(tmp_path: Path) -> None:
    rows = {"counts": [0, *[30, 10] * 50], "size": [40, 50]}  # the upper 30 of 40 rows, down 50 columns
    found = {
        "polygons": [(1, rectangle(30, 40), 1200), (16, rectangle(30, 40, 20), 1200), (8, rectangle(50, 40), 2000)],
        "runs": [(5, rows, 1500)],
        "small": [(1, rectangle(10, 10), 1000)],
        "none": [],
    }
    instances(tmp_path, found)
    polygons, runs = open_dataset(tmp_path, "train", VOC).samples
    person, bird, aeroplane = (VOC.names.index(name) for name in ("person", "bird", "aeroplane"))
    assert polygons.read()[1][5].tolist() == [person] * 20 + [255] * 10 + [bird] * 20
    assert runs.read()[1][:, 3].tolist() == [aeroplane] * 30 + [0] * 10
    assert open_dataset(tmp_path, "train", VOC).check().images == 2
    with pytest.raises(UserError, match="has no labels of all COCO classes .* give --classes voc"):
        open_dataset(tmp_path, "train")


def test_an_images_name_leads_nowhere_but_into_its_folder(tmp_path: Path) -> None:
    instances(tmp_path, {"a": [(1, rectangle(40, 40), 1600)]})
    listing = tmp_path / "annotations" / "instances_train2017.json"
    listing.write_text(listing.read_text(encoding="utf-8").replace('"a.jpg"', '"../../a.jpg"'), encoding="utf-8")
    (sample,) = open_dataset(tmp_path, "train", VOC).samples
    assert ".." not in sample.image.parts and sample.image.name == "a.jpg"
    assert sample.read()[1].any()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    listing = panoptic(tmp_path, {"a": 50, "b": 60})
    with pytest.raises(UserError, match="val2017: is no folder; unpack val2017.zip there"):
        open_dataset(tmp_path, "val")
    (tmp_path / "train2017" / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"train2017/b\.jpg: does not exist, though b\.png labels it"):
        open_dataset(tmp_path, "train")
    (tmp_path / "annotations" / "panoptic_train2017" / "a.png").unlink()
    with pytest.raises(UserError, match=r"panoptic_train2017/a\.png: does not exist"):
        open_dataset(tmp_path, "train")
    listing.unlink()
    with pytest.raises(UserError, match=r"instances_train2017\.json: is not readable JSON"):
        open_dataset(tmp_path, "train", VOC)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"categories": [', "is not readable JSON"),
        ("[]", "is no COCO annotation file"),
        ("{}", r"is no COCO annotation file \('categories' is missing\)"),
        ('{"categories": [{"id": "x", "name": "a"}], "annotations": [], "images": []}', "is no COCO annotation file"),
        ('{"categories": [], "annotations": [{}], "images": []}', "is no COCO annotation file"),
        ('{"categories": [], "annotations": 5, "images": []}', "is no COCO annotation file"),
        ('{"categories": [], "annotations": [null], "images": []}', "is no COCO annotation file"),
    ],
)
@pytest.mark.parametrize("kind", ["panoptic", "instances"])
def test_damaged_json_is_named(tmp_path: Path, text: str, says: str, kind: str) -> None:
    listing = panoptic(tmp_path, {"a": 50}) if kind == "panoptic" else instances(tmp_path, {"a": []})
    listing.write_text(text)
    with pytest.raises(UserError, match=rf"{kind}_train2017\.json: {says}"):
        open_dataset(tmp_path, "train", VOC)


@pytest.mark.parametrize("segmentation", [[[1, 2, 3]], [["x", 1]], [[[1, 2]]], {"counts": [-1]}, {"counts": "P"}, {}, 5])
def test_a_damaged_object_is_named(tmp_path: Path, segmentation: Any) -> None:
    instances(tmp_path, {"a": [(1, segmentation, 1500)]})
    with pytest.raises(UserError, match=r"instances_train2017\.json: is no COCO annotation file"):
        open_dataset(tmp_path, "train", VOC)
