from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_models import HEIGHT, WIDTH, tiny_spec, write_tiny

from dlv3deploy.calibration.calibrate import Budget, Request
from dlv3deploy.calibration.calibrate import calibrate as calibrate_request
from dlv3deploy.calibration.implicit import ImplicitFiles
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.pictures import spread
from dlv3deploy.calibration.table import CalibrationTable
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.graph import embedded_spec, load_onnx
from dlv3deploy.core.images import list_images, read_frame
from dlv3deploy.core.preprocess import preprocess
from dlv3deploy.core.spec import OutputSpec

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    return write_tiny(tmp_path / "model.onnx"), tmp_path / "model.int8.onnx", tmp_path / "calibration.json"


@pytest.fixture(scope="module")
def images(scenes: Path) -> list[Path]:
    return list_images(scenes / "train" / "images")[:8]


def calibrate(model, spec, images, int8_path, table_path, method="min-max", **options) -> CalibrationTable:
    return calibrate_request(Request(model, spec, images, method, **options), int8_path, table_path)


def scores_of(path: Path, image: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    batch, _ = preprocess(read_frame(image), tiny_spec().input)
    return session.run(None, {"image": batch})[0]


def test_ranges_are_the_extremes_over_all_images(files, images) -> None:
    model, int8, table_path = files
    table = calibrate(model, tiny_spec(), images, int8, table_path)
    watched = onnx.load(str(model))
    watched.graph.output.append(onnx.helper.make_tensor_value_info("projection.relu", onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = [
        session.run(["projection.relu"], {"image": preprocess(read_frame(path), tiny_spec().input)[0]})[0] for path in images
    ]
    assert table.ranges["projection.relu"].high == pytest.approx(float(np.max(seen)), rel=1e-6)
    assert table.ranges["projection.relu"].low == pytest.approx(float(np.min(seen)), abs=1e-6)


def test_int8_keeps_nearly_every_pixel_of_the_mask(files, images) -> None:
    model, int8, table = files
    calibrate(model, tiny_spec(), images, int8, table)
    agreement = [(scores_of(model, p).argmax(1) == scores_of(int8, p).argmax(1)).mean() for p in images]
    assert np.mean(agreement) > 0.97


def test_the_order_of_images_does_not_matter_to_the_ranges(files, images, tmp_path: Path) -> None:
    model, int8, table = files
    forward = calibrate(model, tiny_spec(), images, int8, table)
    backward = calibrate(model, tiny_spec(), images[::-1], tmp_path / "b.onnx", tmp_path / "b.json")
    assert forward.ranges == backward.ranges


def test_the_int8_file_describes_itself_and_names_its_parents(files, images) -> None:
    model, int8, table = files
    key = calibrate(model, tiny_spec(), images, int8, table).key
    spec = embedded_spec(load_onnx(int8), "int8")
    assert spec is not None
    assert spec.classes == tiny_spec().classes
    assert spec.parents == {"onnx": key.onnx_sha256, "calibration": key.digest()}


def test_the_table_survives_the_disk(files, images) -> None:
    model, int8, path = files
    assert calibrate(model, tiny_spec(), images, int8, path) == CalibrationTable.read(path)


def test_nothing_is_computed_twice_for_the_same_model_and_images(files, images, monkeypatch) -> None:
    model, int8, path = files
    first = calibrate(model, tiny_spec(), images, int8, path)
    monkeypatch.setattr("dlv3deploy.calibration.calibrate.Network.prepared", lambda *_: pytest.fail("began again"))
    assert calibrate(model, tiny_spec(), images, int8, path) == first


def test_classes_and_kind_of_output_are_described_anew_and_nothing_is_computed_for_it(files, images, monkeypatch) -> None:
    model, int8, path = files
    calibrate(model, tiny_spec(), images, int8, path)
    graph = load_onnx(int8).graph
    monkeypatch.setattr("dlv3deploy.calibration.calibrate.Network.prepared", lambda *_: pytest.fail("began again"))
    spec = tiny_spec()
    names = tuple(f"other {name}" for name in spec.classes.names)
    changed = replace(spec, classes=replace(spec.classes, names=names), output=OutputSpec("logits", "align-corners"))
    calibrate(model, changed, images, int8, path)
    described = embedded_spec(load_onnx(int8), "int8")
    assert described is not None
    assert replace(described, parents=spec.parents) == changed
    assert described.parents["calibration"] == CalibrationTable.read(path).key.digest()
    assert load_onnx(int8).graph == graph
    written = int8.stat().st_mtime_ns
    calibrate(model, changed, images, int8, path)
    assert int8.stat().st_mtime_ns == written


@pytest.mark.parametrize("lost", ["cache", "graph", "both"])
def test_lost_files_of_implicit_int8_are_made_again_and_the_others_stay(files, images, lost: str) -> None:
    model, int8, path = files
    calibrate(model, tiny_spec(), images, int8, path)
    implicit = ImplicitFiles.beside(int8)
    wanted = {file: file.read_bytes() for file in (implicit.graph, implicit.cache)}
    others = {file: file.stat().st_mtime_ns for file in (int8, path)}
    for file in {"cache": [implicit.cache], "graph": [implicit.graph], "both": [*wanted]}[lost]:
        file.unlink()
    calibrate(model, tiny_spec(), images, int8, path)
    assert {file: file.read_bytes() for file in wanted} == wanted
    assert {file: file.stat().st_mtime_ns for file in others} == others


def test_a_run_that_ends_before_the_model_leaves_no_foreign_cache_behind_the_next(files, images, monkeypatch) -> None:
    """The graph and the cache are those of a second calibration, the model and its table of the first."""
    model, int8, path = files
    calibrate(model, tiny_spec(), images, int8, path)
    implicit = ImplicitFiles.beside(int8)
    wanted = {file: file.read_bytes() for file in (implicit.graph, implicit.cache, int8, path)}
    with monkeypatch.context() as patched:
        patched.setattr("dlv3deploy.calibration.calibrate.save_onnx", interrupt)
        with pytest.raises(KeyboardInterrupt):
            calibrate(model, tiny_spec(), images[:3], int8, path)
    assert implicit.cache.read_bytes() != wanted[implicit.cache]
    calibrate(model, tiny_spec(), images, int8, path)
    assert {file: file.read_bytes() for file in wanted} == wanted


def test_a_model_whose_weights_were_changed_is_not_taken_for_the_calibrated_one(files, images) -> None:
    model, int8, path = files
    calibrate(model, tiny_spec(), images, int8, path)
    wanted, changed = int8.read_bytes(), load_onnx(int8)
    changed.graph.initializer[0].raw_data = bytes(len(changed.graph.initializer[0].raw_data))
    int8.write_bytes(changed.SerializeToString())
    calibrate(model, tiny_spec(), images, int8, path)
    assert int8.read_bytes() == wanted


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("change", ["model", "images", "normalisation", "int8 file", "table"])
def test_a_change_of_anything_it_depends_on_calibrates_again(files, images, change: str, monkeypatch) -> None:
    model, int8, path = files
    first = calibrate(model, tiny_spec(), images, int8, path)
    begun = []
    prepared = Network.prepared
    monkeypatch.setattr("dlv3deploy.calibration.calibrate.Network.prepared", lambda *given: begun.append(1) or prepared(*given))
    spec = tiny_spec()
    if change == "model":
        write_tiny(model, seed=7)
    elif change == "images":
        images = images[:-1]
    elif change == "normalisation":
        spec = replace(spec, input=replace(spec.input, mean=(0.0, 0.0, 0.0)))
    elif change == "int8 file":
        int8.write_bytes(int8.read_bytes()[:100])
    else:
        path.write_text("{}")
    second = calibrate(model, spec, images, int8, path)
    assert load_onnx(int8).graph.node
    assert CalibrationTable.read(path) == second
    assert begun
    assert (second.key == first.key) == (change in ("int8 file", "table"))
    written = embedded_spec(load_onnx(int8), "int8")
    assert written is not None
    assert written.parents["calibration"] == second.key.digest()


def test_ranges_taken_at_another_size_are_others(files, images) -> None:
    model, _, _ = files
    wide = Request(model, tiny_spec().at_size(HEIGHT, WIDTH * 2), images)
    assert wide.key().digest() != Request(model, tiny_spec(), images).key().digest()


def test_an_int8_file_of_other_images_is_not_taken_for_this_tables(files, images, tmp_path: Path) -> None:
    """What a build leaves that dies between its two files: the new model beside the old table."""
    model, int8, path = files
    calibrate(model, tiny_spec(), images, int8, path)
    wanted = int8.read_bytes()
    other = tmp_path / "other.onnx"
    calibrate(model, tiny_spec(), images[:2], other, tmp_path / "other.json")
    int8.write_bytes(other.read_bytes())
    calibrate(model, tiny_spec(), images, int8, path)
    assert int8.read_bytes() == wanted


def test_weights_that_are_not_finite_are_refused_and_older_files_stay(files, images) -> None:
    model, int8, path = files
    calibrate(model, tiny_spec(), images, int8, path)
    before = int8.read_bytes(), path.read_bytes()
    broken = onnx.load(str(model))
    weight = next(w for w in broken.graph.initializer if w.name == "inner.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0, 0, 0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    model.write_bytes(broken.SerializeToString())
    with pytest.raises(CheckFailed, match="not finite"):
        calibrate(model, tiny_spec(), images, int8, path)
    assert (int8.read_bytes(), path.read_bytes()) == before


def test_no_images_and_a_corrupt_image_are_refused(files, images, tmp_path: Path) -> None:
    model, int8, path = files
    with pytest.raises(UserError, match="no calibration image"):
        calibrate(model, tiny_spec(), [], int8, path)
    corrupt = tmp_path / "corrupt.jpg"
    corrupt.write_bytes(images[0].read_bytes()[:500])
    with pytest.raises(UserError, match=r"corrupt\.jpg"):
        calibrate(model, tiny_spec(), [images[0], corrupt], int8, path)
    assert not int8.exists()


def test_images_are_spread_over_the_whole_list() -> None:
    names = [Path(str(i)) for i in range(101)]
    assert spread(names, 3) == [names[0], names[50], names[100]]
    assert spread(names, 200) == names
    assert spread(names, 1) == [names[0]]
    assert len(set(spread(names, 40))) == 40


def int8_convs(model: onnx.ModelProto) -> int:
    made = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return sum(node.op_type == "Conv" and made.issuperset(node.input[:2]) for node in model.graph.node)


@pytest.mark.parametrize("method", ["min-max", "mse+bias+rounding+sequential"])
def test_a_mixture_is_what_keeping_its_convolutions_by_name_makes(files, images, tmp_path: Path, method: str) -> None:
    """A budget that is met with four of seven convolutions in INT8. Layers that were rounded for what an INT8 layer before
    them gets wrong would otherwise make good for what is right."""
    budget = Budget(0.1, "the number of convolutions", lambda _: lambda model: 0.5 * (int8_convs(model) > 4))
    found = calibrate(files[0], tiny_spec(), images, *files[1:], method, budget=budget)
    assert int8_convs(load_onnx(files[1])) == 4 and {point.kept: point.drop for point in found.mixtures}[3] == 0
    named = files[0], tiny_spec(), images, tmp_path / "named.onnx", tmp_path / "named.json", method
    again = calibrate(*named, keep=tuple(set(found.kept_float) - {"pooled"}))
    assert (again.model_sha256, again.ranges, again.kept_float) == (found.model_sha256, found.ranges, found.kept_float)


def test_other_judges_judge_anew(files, images) -> None:
    asked = []

    def budget(name: str) -> Budget:
        return Budget(0.1, name, lambda _: lambda _: float(bool(asked.append(name))))

    for name in ("one", "one", "another"):
        calibrate(files[0], tiny_spec(), images, *files[1:], budget=budget(name))
    assert asked == ["one", "another"]


def test_what_cannot_become_int8_is_refused_before_any_image_is_read(tmp_path: Path, images) -> None:
    float16 = pytest.importorskip("onnxconverter_common").float16
    half = float16.convert_float_to_float16(onnx.load(str(write_tiny(tmp_path / "model.onnx"))), keep_io_types=True)
    (tmp_path / "model.onnx").write_bytes(half.SerializeToString())
    (tmp_path / "torn.png").touch()
    targets = tmp_path / "model.int8.onnx", tmp_path / "calibration.json"
    with pytest.raises(UserError, match="has weights of other types than float32"):
        calibrate(tmp_path / "model.onnx", tiny_spec(), [tmp_path / "torn.png"], *targets)
    write_tiny(tmp_path / "model.onnx", opset=12)
    with pytest.raises(UserError, match="opset 12"):
        calibrate(tmp_path / "model.onnx", tiny_spec(), [tmp_path / "torn.png"], *targets)


def test_the_place_of_another_models_files_is_taken_and_that_is_said(files, images) -> None:
    said: list[str] = []
    for seed in (0, 0, 1):
        write_tiny(files[0], seed=seed)
        calibrate_request(Request(files[0], tiny_spec(), images, "min-max"), *files[1:], said.append)
        if seed == 0:
            assert not any("made of another file" in line for line in said)
    assert "takes the place of one that was made of another file, of sha256 " in said[-1]
