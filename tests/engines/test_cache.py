"""Engines kept by what decides them: equal builds are made once, other ones never taken for them."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from tiny_models import tiny_spec, write_tiny

from dlv3deploy.core.errors import CheckFailed, StaleArtefact, UserError
from dlv3deploy.core.files import replacing, sha256_of
from dlv3deploy.core.workspace import manifest_path
from dlv3deploy.engines import build as building
from dlv3deploy.engines import cache as caching
from dlv3deploy.engines.build import build
from dlv3deploy.engines.cache import EngineCache
from dlv3deploy.engines.manifest import Manifest
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeBackend
from dlv3deploy.engines.open import open_engine
from dlv3deploy.engines.release import copied
from dlv3deploy.engines.request import EngineRequest

pytest.importorskip("onnxruntime")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache" / "engines")


@pytest.fixture
def request_(tmp_path: Path) -> EngineRequest:
    source = write_tiny(tmp_path / "model.onnx")
    return EngineRequest(source, source, tiny_spec(), "fp32", "onnxruntime", command="dlv3deploy build-engine --fp32")


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was compiled, in order."""
    made: list[str] = []
    real = OnnxRuntimeBackend.build

    def build_(self: OnnxRuntimeBackend, model: bytes, engine: Path, where: str) -> None:
        made.append(where)
        real(self, model, engine, where)

    monkeypatch.setattr(OnnxRuntimeBackend, "build", build_)
    return made


def test_an_equal_build_is_taken_from_the_cache_with_its_latency(
    cache: EngineCache, request_: EngineRequest, builds: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = build(request_, tmp_path / "a" / "one.engine", cache)
    second = build(replace(request_, command="another"), tmp_path / "two.engine", cache)
    assert len(builds) == 1
    assert "an equal engine (FP32, no rewrites) was built" in capsys.readouterr().err
    assert (tmp_path / "two.engine").read_bytes() == (tmp_path / "a" / "one.engine").read_bytes()
    assert second.timing == first.timing and (first.command, second.command) == (request_.command, "another")
    assert (first.onnx, second.onnx) == (str(request_.source.resolve()), "model.onnx")
    for name in ("a/one.engine", "two.engine"):
        open_engine(tmp_path / name).close()


def test_an_equal_file_elsewhere_has_an_engine_that_names_it(
    cache: EngineCache, request_: EngineRequest, tmp_path: Path
) -> None:
    """Whose file is exported anew, or gone, is nothing to the engine of the other."""
    other = tmp_path / "b" / "model.onnx"
    other.parent.mkdir()
    other.write_bytes(request_.source.read_bytes())
    build(request_, tmp_path / "model.engine", cache)
    manifest = build(replace(request_, onnx=other, source=other), other.with_suffix(".engine"), cache)
    assert manifest.onnx == "model.onnx"
    request_.source.unlink()
    open_engine(other.with_suffix(".engine")).close()
    write_tiny(other, seed=4)
    with pytest.raises(StaleArtefact, match=r"sha256 of model\.onnx"):
        open_engine(other.with_suffix(".engine"))


def test_a_manifest_that_was_changed_in_the_cache_is_not_handed_on(
    cache: EngineCache, request_: EngineRequest, builds: list[str], tmp_path: Path
) -> None:
    first = build(request_, tmp_path / "model.engine", cache)
    (kept,) = cache.folder.glob("*.engine.json")
    text = kept.read_text()
    kept.write_text(text.replace('"precision": "fp32"', '"precision": "int8"'))
    assert kept.read_text() != text
    again = build(request_, tmp_path / "model.engine", cache)
    assert len(builds) == 2 and again.precision == first.precision
    assert not Manifest.read(tmp_path / "model.engine").broken_seals()


def test_what_is_done_to_a_copy_leaves_the_cache_as_it_is(cache: EngineCache, request_: EngineRequest, tmp_path: Path) -> None:
    build(request_, tmp_path / "model.engine", cache)
    (tmp_path / "model.engine").write_bytes(b"spoilt")
    build(request_, tmp_path / "model.engine", cache)
    open_engine(tmp_path / "model.engine").close()


def differing(request: EngineRequest, tmp_path: Path) -> dict[str, EngineRequest]:
    other = write_tiny(tmp_path / "other.onnx", seed=3)
    spec = request.spec
    return {
        "the file": replace(request, onnx=other, source=other),
        "the spec": replace(request, spec=replace(spec, input=replace(spec.input, mean=(1.0, 2.0, 3.0)))),
        "rewrites": replace(request, rewrites=("image-pooling",)),
    }


@pytest.mark.parametrize("what", ["the file", "the spec", "rewrites"])
def test_another_request_is_another_engine(
    what: str, cache: EngineCache, request_: EngineRequest, builds: list[str], tmp_path: Path
) -> None:
    build(request_, tmp_path / "model.engine", cache)
    build(differing(request_, tmp_path)[what], tmp_path / "model.engine", cache)
    assert len(builds) == 2 and len(cache.entries()) == 2


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (OnnxRuntimeBackend, "builder", lambda real: lambda self: replace(real(self), version="0.0")),
        (OnnxRuntimeBackend, "builder", lambda real: lambda self: replace(real(self), flags={"optimisation": "none"})),
        (OnnxRuntimeBackend, "target", lambda real: lambda self: replace(real(self), device="cpu (other)")),
        (building, "_version", lambda _: lambda name: f"another {name}"),
        (building.platform, "node", lambda _: lambda: "another machine"),
        (caching, "code_sha256", lambda _: lambda: "another version of the code"),
    ],
)
def test_another_builder_machine_or_library_is_another_engine(
    owner: Any,
    name: str,
    value: Any,
    cache: EngineCache,
    request_: EngineRequest,
    builds: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build(request_, tmp_path / "model.engine", cache)
    monkeypatch.setattr(owner, name, value(getattr(owner, name)))
    build(request_, tmp_path / "model.engine", cache)
    assert len(builds) == 2


def test_a_damaged_engine_is_built_again(
    cache: EngineCache, request_: EngineRequest, builds: list[str], tmp_path: Path
) -> None:
    for spoil in (
        lambda e: e.write_bytes(b"cut"),
        lambda e: manifest_path(e).write_text("{}"),
        lambda e: manifest_path(e).unlink(),
    ):
        build(request_, tmp_path / "model.engine", cache)
        (entry,) = cache.entries()
        assert entry.manifest is not None
        spoil(entry.engine)
        assert cache.entries()[0].manifest is None
    build(request_, tmp_path / "model.engine", cache)
    assert len(builds) == 4


def test_builders_of_the_same_engine_wait_for_the_first(
    cache: EngineCache, request_: EngineRequest, builds: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: build(request_, tmp_path / f"{number}.engine", cache), range(4)))
    assert len(builds) == 1
    assert "waiting for it" in capsys.readouterr().err
    for number in range(4):
        open_engine(tmp_path / f"{number}.engine").close()


def test_a_build_that_fails_gives_its_place_back(cache: EngineCache, request_: EngineRequest, tmp_path: Path) -> None:
    request_.source.write_bytes(b"no model")
    for _ in range(2):
        with pytest.raises(UserError):
            build(request_, tmp_path / "model.engine", cache)
    assert cache.entries() == [] and not (tmp_path / "model.engine").exists()


def test_a_cache_that_cannot_be_written_is_an_error_in_words(request_: EngineRequest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written .*DLV3DEPLOY_CACHE"):
        build(request_, tmp_path / "model.engine", EngineCache(tmp_path / "file" / "engines"))


def test_pruning_removes_what_is_damaged_or_was_not_used_for_long(
    cache: EngineCache, request_: EngineRequest, tmp_path: Path
) -> None:
    requests = differing(request_, tmp_path)
    for what in ("the file", "the spec", "rewrites"):
        build(requests[what], tmp_path / f"{what}.engine", cache)
    newest, middle, oldest = cache.entries()
    middle.engine.write_bytes(b"cut")
    ten_days_ago = time.time() - 10 * 86400
    os.utime(manifest_path(oldest.engine), (ten_days_ago, ten_days_ago))
    assert [entry.key for entry in cache.prune(None)[0]] == [middle.key]
    assert cache.prune(11) == ([], [])
    assert [entry.key for entry in cache.prune(9)[0]] == [oldest.key]
    assert [entry.key for entry in cache.entries()] == [newest.key]
    assert [entry.key for entry in cache.prune(0)[0]] == [newest.key]
    assert [path.name for path in cache.folder.iterdir()] == ["locks"]


def test_pruning_leaves_what_a_builder_is_writing_and_takes_what_a_killed_one_left(
    cache: EngineCache, request_: EngineRequest, tmp_path: Path
) -> None:
    build(request_, tmp_path / "model.engine", cache)
    (entry,) = cache.entries()
    inside, leave = Event(), Event()

    def write() -> None:
        with cache.slot("f" * 32) as slot, replacing(slot) as fresh:
            fresh.write_bytes(b"half of an engine")
            inside.set()
            leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        assert inside.wait(10)
        assert cache.entries() == [entry] and cache.prune(None) == ([], [])
        leave.set()
        writing.result()
    left = cache.folder / f".{'e' * 32}.0123abcd.partial.engine"
    left.write_bytes(b"of a builder that was killed")
    cache.prune(None)
    assert not left.exists()


def test_a_file_that_changes_while_its_engine_is_built_does_not_get_into_the_cache(
    cache: EngineCache, request_: EngineRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = building.prepared

    def exported_meanwhile(request: EngineRequest) -> Any:
        write_tiny(request.source, seed=8)
        return real(request)

    monkeypatch.setattr(building, "prepared", exported_meanwhile)
    with pytest.raises(CheckFailed, match=r"model\.onnx was changed while an engine was being built from it"):
        build(request_, tmp_path / "model.engine", cache)
    assert cache.entries() == [] and not (tmp_path / "model.engine").exists()


def test_pruning_leaves_what_is_being_built(cache: EngineCache, request_: EngineRequest, tmp_path: Path) -> None:
    build(request_, tmp_path / "model.engine", cache)
    (entry,) = cache.entries()
    inside, leave = Event(), Event()

    def hold() -> None:
        with cache.slot(entry.key):
            inside.set()
            leave.wait(10)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        assert inside.wait(10)
        removed, held = cache.prune(0)
        leave.set()
    assert (removed, [one.key for one in held]) == ([], [entry.key])
    assert Manifest.read(entry.engine)


def test_what_is_free_on_a_jetson_makes_no_other_engine(
    cache: EngineCache, request_: EngineRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit that a build gets by itself is not part of its key, and nobody counts memory for an engine that is there."""
    first = build(request_, tmp_path / "model.engine", cache)
    monkeypatch.setattr(OnnxRuntimeBackend, "fitted", lambda _self, _graph: pytest.fail("memory was asked for"))
    assert build(request_, tmp_path / "again.engine", cache).engine_sha256 == first.engine_sha256


def test_two_who_release_to_one_place_leave_one_engine_with_its_manifest(request_: EngineRequest, tmp_path: Path) -> None:
    """Of different keys, so that no lock of the cache keeps them apart."""
    engine, made = tmp_path / "model.engine", []
    for index, rewrites in enumerate([(), ("image-pooling",)]):
        own = tmp_path / f"{index}.engine"
        made.append((own, build(replace(request_, rewrites=rewrites), own)))
    for _ in range(30):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: copied(*one, engine), made))
        assert Manifest.read(engine).engine_sha256 == sha256_of(engine)
        assert "previous" not in json.loads(manifest_path(engine).read_text())
