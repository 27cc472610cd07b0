"""Models and their images as the command line names them, and as every method gets them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_datasets as tiny
from quantization_cases import Request, built_in, open_case, parse_request
from tiny_models import CLASSES, HEIGHT, WIDTH, tiny_spec, write_tiny

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import embed_spec, embedded_spec, load_onnx, ports, save_onnx
from dlv3deploy.core.images import list_images
from dlv3deploy.core.spec import Architecture, TrainingFacts

pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

GREY = "127.5,127.5,127.5"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten pictures with labels, in plain folders."""
    for number in range(10):
        tiny.picture(tmp_path / "data" / "images" / f"{number}.png", (20, 30))
        tiny.ids(tmp_path / "data" / "labels" / f"{number}.png", number % CLASSES, 0, size=(10 + number, 30))
    return tmp_path / "data"


def request(model: Path, data: Path) -> Request:
    return Request("tiny", model, data, data / "images")


def test_a_foreign_file_is_described_in_its_own_words_and_commas_inside_values_are_kept() -> None:
    text = f"mine=a/model.onnx,classes=camvid,mean={GREY},std={GREY},data=labelled"
    parsed = parse_request(text, {}, Path("other"), Path("pictures"))
    described = ("--classes", "camvid", "--mean", GREY, "--std", GREY)
    assert parsed == Request("mine", Path("a/model.onnx"), Path("labelled"), Path("pictures"), described)
    assert parse_request(f"{text},hard=yes", {}, Path("other"), Path("pictures")) == replace(parsed, is_hard=True)


def test_built_in_models_are_known_by_name(tmp_path: Path) -> None:
    known = built_in(tmp_path)
    assert list(known)[:3] == ["camvid", "camvid-twin", "voc"]
    assert parse_request("voc", known, None, None) is known["voc"]
    assert (known["voc"].calibrate, known["voc"].judge) == ((1, 2), (0, 2))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nobody", "is no built-in model"),
        ("a/b=model.onnx", "names a folder of the workspace"),
        ("x=model.onnx,size=3", "size is unknown; use some of data, images, hard, classes"),
        ("x=model.onnx,images=here", "has no --data"),
        ("x=model.onnx,data=here,images=here,hard=very", "is no answer; give hard=yes or hard=no"),
        ("x=model.onnx,data=here", "has no --calibration-images"),
    ],
)
def test_what_cannot_be_understood_is_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_request(text, {}, None, None)


def test_every_method_gets_one_folder_of_exactly_the_chosen_images(tmp_path: Path, data: Path) -> None:
    given = request(write_tiny(tmp_path / "tiny.onnx"), data)
    case = open_case(given, tmp_path / "space", 3, 4, None)
    assert [link.resolve().name for link in list_images(case.images)] == ["0.png", "4.png", "9.png"]
    assert [each.image.name for each in case.judged] == ["0.png", "4.png", "8.png"]
    assert [each.size for each in case.judged] == [(10, 30), (14, 30), (18, 30)] == [label.shape for label in case.labels]
    assert case.about == f"{HEIGHT}×{WIDTH}; calibrated on 3 of 10 images; judged on 3 images, one in 4"
    fewer = open_case(given, tmp_path / "space", 2, 4, None)
    assert [link.resolve().name for link in list_images(fewer.images)] == ["0.png", "9.png"]
    assert fewer.fingerprints["images"] != case.fingerprints["images"]
    assert fewer.fingerprints["judged"] == case.fingerprints["judged"]


def test_halves_keep_what_calibrates_apart_from_what_judges(tmp_path: Path, data: Path) -> None:
    given = request(write_tiny(tmp_path / "tiny.onnx"), data)
    halves = Request(given.name, given.model, data, given.images, (), (1, 2), (0, 2))
    case = open_case(halves, tmp_path / "space", 100, 1, None)
    assert [link.resolve().stem for link in list_images(case.images)] == list("13579")
    assert [each.image.stem for each in case.judged] == list("02468")
    assert case.about.endswith("calibrated on 5 of 5 images, taken 1::2; judged on 5 images, taken 0::2")


def test_a_model_of_our_own_training_says_what_it_is(tmp_path: Path, data: Path) -> None:
    path = write_tiny(tmp_path / "tiny.onnx")
    model, network = load_onnx(path), Architecture("mobilenet_v2", 16, (6, 12), 8)
    embed_spec(model, replace(tiny_spec(), architecture=network, training=TrainingFacts("scenes", 600)))
    save_onnx(path, model)
    case = open_case(request(path, data), tmp_path / "space", 3, 4, None)
    assert case.about.startswith(f"{network}, 600 steps of training; {HEIGHT}×{WIDTH}; calibrated on")


def test_the_model_is_a_copy_which_is_mended_when_something_changed_it(tmp_path: Path, data: Path) -> None:
    given = request(write_tiny(tmp_path / "tiny.onnx"), data)
    original = given.model.read_bytes()
    case = open_case(given, tmp_path / "space", 3, 1, None)
    assert not case.model.samefile(given.model)
    case.model.write_bytes(b"spoilt")
    again = open_case(given, tmp_path / "space", 3, 1, None)
    assert again.model.read_bytes() == given.model.read_bytes() == original
    assert again.fingerprints == case.fingerprints


def test_a_model_of_dynamic_size_becomes_one_file_of_the_size_that_all_methods_get(tmp_path: Path, data: Path) -> None:
    dynamic = write_tiny(tmp_path / "tiny.onnx", dynamic=True)
    case = open_case(request(dynamic, data), tmp_path / "space", 3, 1, (64, 96))
    model = load_onnx(case.model)
    spec = embedded_spec(model, "copy")
    assert case.model != dynamic
    assert ports(model, "copy")[0].shape == (1, 3, 64, 96)
    assert spec is not None and not spec.input.dynamic_size
    assert spec == case.spec


def test_a_size_for_a_fixed_model_and_a_folder_without_images_are_refused(tmp_path: Path, data: Path) -> None:
    fixed = write_tiny(tmp_path / "tiny.onnx")
    with pytest.raises(UserError, match="leave --size out"):
        open_case(request(fixed, data), tmp_path / "space", 3, 1, (128, 128))
    with pytest.raises(UserError, match="holds no calibration image"):
        open_case(Request("tiny", fixed, data, tmp_path / "nowhere"), tmp_path / "space", 3, 1, None)
