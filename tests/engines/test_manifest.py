"""An engine that does not fit is refused: the field, both values, and the command that mends it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_spec, write_tiny

from dlv3deploy.calibration.calibrate import Request, calibrate
from dlv3deploy.core.errors import StaleArtefact, UserError
from dlv3deploy.core.images import list_images
from dlv3deploy.core.workspace import manifest_path
from dlv3deploy.engines.build import build
from dlv3deploy.engines.fresh import check_fresh
from dlv3deploy.engines.manifest import Builder, Calibration, Manifest, Target
from dlv3deploy.engines.open import open_engine
from dlv3deploy.engines.request import EngineRequest

pytest.importorskip("onnxruntime")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    source = write_tiny(tmp_path / "model.onnx")
    build(EngineRequest(source, source, tiny_spec(), "fp32", "onnxruntime"), tmp_path / "model.engine")
    return tmp_path / "model.engine"


def edit(engine: Path, *keys: str, value: Any) -> None:
    path = manifest_path(engine)
    data = json.loads(path.read_text())
    place = data
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(data))


def test_an_engine_opens_where_it_was_built(engine: Path) -> None:
    with open_engine(engine) as opened:
        assert opened.spec.classes == tiny_spec().classes


def test_an_onnx_file_exported_again_makes_it_stale(engine: Path) -> None:
    write_tiny(engine.parent / "model.onnx", seed=9)
    with pytest.raises(StaleArtefact, match=r"sha256 of model\.onnx.*build-engine --fp32") as caught:
        open_engine(engine)
    assert caught.value.found != caught.value.expected
    assert caught.value.exit_code == 3


def test_a_workspace_may_be_moved(engine: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(engine.parent, tmp_path / "elsewhere")
    with open_engine(moved / "model.engine") as opened:
        opened.close()


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        (("engine_sha256",), "sha256 of the engine file"),
        (("onnx_sha256",), "sha256 of model.onnx"),
        (("builder", "version"), "onnxruntime version"),
        (("target", "device"), "device"),
        (("target", "compute_capability"), "compute capability"),
        (("target", "driver"), "driver"),
    ],
)
def test_every_field_that_differs_is_named_with_both_values(engine: Path, keys: tuple[str, ...], field: str) -> None:
    edit(engine, *keys, value="something else")
    with pytest.raises(StaleArtefact) as caught:
        open_engine(engine)
    assert caught.value.field == field
    assert str(caught.value.found).startswith("something")
    assert "dlv3deploy build-engine" in str(caught.value)


def leaves(value: Any, *keys: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every number, text and truth in JSON, with the way to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, *keys, key)
    elif isinstance(value, list):
        yield keys, value
    else:
        yield keys, value


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return [*value, *value] or ["more"]
    return f"{value}x" if value is not None else "something"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_no_field_of_a_manifest_can_be_another(precision: str, tmp_path: Path, scenes: Path) -> None:
    """Whatever is changed in the file, the engine is refused in words, or the file as one that no version wrote."""
    source, table = write_tiny(tmp_path / "model.onnx"), tmp_path / "calibration.json"
    request, engine = EngineRequest(source, source, tiny_spec(), precision, "onnxruntime"), tmp_path / "model.engine"  # type: ignore[arg-type]  # a text
    if precision == "int8":
        images = list_images(scenes / "train" / "images")[:4]
        made = calibrate(Request(source, tiny_spec(), images, "min-max"), tmp_path / "model.int8.onnx", table)
        key = made.key
        facts = Calibration(made.chosen, key.images, key.images_sha256, table.name, made.model_sha256, key.resolution)
        request = replace(request, onnx=tmp_path / "model.int8.onnx", calibration=facts)
    build(request, engine)
    open_engine(engine).close()
    whole = json.loads(manifest_path(engine).read_text())
    seen = set()
    for keys, value in leaves({name: content for name, content in whole.items() if name not in ("format", "seals")}):
        edit(engine, *keys, value=other(value))
        with pytest.raises((StaleArtefact, UserError)) as caught:
            open_engine(engine)
        assert keys[0] != "timing" or "the manifest's timing" in str(caught.value)
        seen.add(keys[0])
        manifest_path(engine).write_text(json.dumps(whole))
    assert seen == {field.name for field in fields(Manifest)} - {"seals"}


def test_a_spec_is_held_against_that_of_its_onnx_file(engine: Path) -> None:
    manifest = Manifest.read(engine)
    spec = manifest.spec
    replace(manifest, spec=replace(spec, input=replace(spec.input, mean=(1.0, 2.0, 3.0)))).write(manifest_path(engine))
    with pytest.raises(
        StaleArtefact, match="input mean was .*1.0, 2.0, 3.0.* when it was made and is .*; rebuild with"
    ) as caught:
        open_engine(engine)
    assert caught.value.expected == spec.input.mean


def test_a_calibration_that_was_made_again_is_told_by_what_changed(tmp_path: Path, scenes: Path) -> None:
    source, int8, table = write_tiny(tmp_path / "model.onnx"), tmp_path / "model.int8.onnx", tmp_path / "calibration.json"
    images = list_images(scenes / "train" / "images")
    key = (made := calibrate(Request(source, tiny_spec(), images[:4], "min-max"), int8, table)).key
    facts = Calibration(made.chosen, key.images, key.images_sha256, table.name, made.model_sha256, key.resolution)
    build(EngineRequest(int8, source, tiny_spec(), "int8", "onnxruntime", calibration=facts), tmp_path / "model.engine")
    calibrate(Request(source, tiny_spec(), images[2:6], "min-max"), int8, table)
    with pytest.raises(StaleArtefact, match="model_sha256 in calibration.json"):
        open_engine(tmp_path / "model.engine")


def test_an_engine_from_another_model_under_this_name_is_refused(engine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    source = write_tiny(other / "model.onnx", seed=5)
    build(EngineRequest(source, source, tiny_spec(), "fp32", "onnxruntime"), other / "model.engine")
    shutil.copy(other / "model.engine", engine)  # the manifest beside it still speaks of the first
    with pytest.raises(StaleArtefact, match="engine file"):
        open_engine(engine)
    shutil.copy(manifest_path(other / "model.engine"), manifest_path(engine))
    with pytest.raises(StaleArtefact, match=r"model\.onnx"):
        open_engine(engine)


def test_an_engine_that_is_cut_short_is_refused(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes()[:-100])
    with pytest.raises(StaleArtefact, match="engine file"):
        open_engine(engine)


def test_an_engine_without_a_manifest_is_refused(engine: Path) -> None:
    manifest_path(engine).unlink()
    with pytest.raises(UserError, match="no manifest"):
        open_engine(engine)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"format": 1}', "not json"])
def test_a_damaged_manifest_is_an_error_and_no_crash(engine: Path, text: str) -> None:
    manifest_path(engine).write_text(text)
    with pytest.raises(UserError):
        open_engine(engine)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("builder", "version"), 10),
        (("builder", "flags"), []),
        (("builder", "flags", "providers"), 5),
        (("target", "compute_capability"), 8.7),
        (("target", "device"), 5),
        (("timing",), 3),
        (("gate",), "x"),
        (("tuning",), [3]),
    ],
)
def test_a_field_of_another_type_is_an_error_in_words(engine: Path, keys: tuple[str, ...], value: object) -> None:
    edit(engine, *keys, value=value)
    with pytest.raises((UserError, StaleArtefact)):
        open_engine(engine)


def test_a_field_may_be_removed_or_of_another_type_without_a_crash(engine: Path) -> None:
    original = json.loads(manifest_path(engine).read_text())
    for key in original:
        for value in (None, 3, [], {}, "x"):
            manifest_path(engine).write_text(json.dumps({**original, key: value}))
            with suppress(UserError, StaleArtefact):
                open_engine(engine).close()
        manifest_path(engine).write_text(json.dumps({k: v for k, v in original.items() if k != key}))
        with suppress(UserError, StaleArtefact):
            open_engine(engine).close()


def test_a_gpu_engine_is_refused_on_another_gpu_and_driver(engine: Path) -> None:
    replace(Manifest.read(engine), target=Target("Orin", "8.7", "12.6")).write(manifest_path(engine))
    manifest = Manifest.read(engine)
    for here, field in ((Target("Xavier", "7.2", "12.6"), "device"), (Target("Orin", "8.7", "13.0"), "driver")):
        with pytest.raises(StaleArtefact) as caught:
            check_fresh(engine, manifest, manifest.builder, here)
        assert caught.value.field == field
    check_fresh(engine, manifest, manifest.builder, Target("Orin", "8.7", "12.6"))


def test_another_backend_is_refused(engine: Path) -> None:
    manifest = Manifest.read(engine)
    with pytest.raises(StaleArtefact, match="builder"):
        check_fresh(engine, manifest, Builder("tensorrt", "10.3.0"), manifest.target)
