"""Tuning: the fastest candidate beyond noise is kept, all are in the manifest, and estimates are called so."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_spec, write_tiny

from dlv3deploy.core.engine import Batch, Engine, Outputs
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.engines import tune as tuning
from dlv3deploy.engines.cache import EngineCache
from dlv3deploy.engines.manifest import Manifest
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeBackend
from dlv3deploy.engines.open import open_engine
from dlv3deploy.engines.plans.devices import DEVICES, device_named
from dlv3deploy.engines.plans.plan import Plan
from dlv3deploy.engines.request import EngineRequest
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend
from dlv3deploy.engines.tensorrt_options import TensorRTOptions
from dlv3deploy.engines.tune import Candidate, fastest, race, tune

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def request_(tmp_path: Path) -> EngineRequest:
    source = write_tiny(tmp_path / "model.onnx")
    return EngineRequest(source, source, tiny_spec(), "fp32", "onnxruntime")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "WARM_UP_S", 0.0)
    monkeypatch.setattr(tuning, "ROUNDS_S", 0.0)


class Sleeper:
    """An engine of known latency that notes when it is asked."""

    name, input_shape = "sleeper", (1, 3, 64, 96)
    spec: ModelSpec = tiny_spec()

    def __init__(self, milliseconds: float, name: str, called: list[str]) -> None:
        self.seconds, self.name, self.called = milliseconds / 1e3, name, called

    def infer(self, batch: Batch) -> Outputs:
        self.called.append(self.name)
        time.sleep(self.seconds)
        return batch


def candidates(request: EngineRequest, *ms: list[float]) -> list[Candidate]:
    return [Candidate(request, (), np.asarray(times)) for times in ms]


@pytest.mark.parametrize(
    ("ms", "kept"),
    [
        (([3.0] * 8, [2.0] * 8), 1),
        (([3.0] * 8, [2.0] * 8, [1.9] * 8), 2),
        (([2.0] * 8, [2.0] * 8), 0),
        (([2.0, 9, 2, 9, 2, 9, 2, 9], [1.9, 9, 2.1, 9, 2.1, 9, 2.1, 9]), 0),
        (([2.0] * 8, [1.9] * 5 + [2.1] * 3), 0),
        (([2.0] * 8, [1.9] * 6 + [2.1] * 2), 1),
        (([3.0] * 8, [1.0] * 8, [2.0] * 8), 1),
    ],
)
def test_a_candidate_is_kept_when_it_is_faster_in_the_median_and_in_most_rounds(
    request_: EngineRequest, ms: tuple[list[float], ...], kept: int
) -> None:
    assert fastest(candidates(request_, *ms)) == kept


def test_engines_are_timed_in_turns() -> None:
    called: list[str] = []
    first, second = race([Sleeper(3, "first", called), Sleeper(1, "second", called)])  # type: ignore[list-item]  # as a race takes them
    assert called == ["first", "second"] * (len(called) // 2)
    assert len(first) == len(second) == tuning.FEWEST_ROUNDS and len(called) == 2 * (tuning.FEWEST_ROUNDS + 1)
    assert first.min() >= 3 and second.min() >= 1


def test_every_candidate_is_in_the_manifest_and_the_kept_one_is_the_engine(
    request_: EngineRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race is decided: the second candidate, image pooling folded, wins."""
    monkeypatch.setattr(
        tuning, "race", lambda engines, _images: [np.full(8, 5.0 - (index == 1)) for index in range(len(engines))]
    )
    place, manifest = tune({tmp_path / "model.engine": request_}, EngineCache(tmp_path / "cache"), None)
    assert place == tmp_path / "model.engine"
    graphs = [(), ("image pooling folded",)]  # the other rewrites change nothing here
    tried = [(layout, names) for layout in ("blocked", "plain") for names in graphs]
    assert [(trial.layout, trial.rewrites) for trial in manifest.tuning] == tried
    figures = [(trial.p50_ms, trial.is_kept, trial.is_estimate) for trial in manifest.tuning]
    assert figures == [(5.0, False, False), (4.0, True, False), (5.0, False, False), (5.0, False, False)]
    assert manifest.rewrites == ("image pooling folded",)
    assert manifest.timing is not None and manifest.timing.p50_ms == 4.0
    assert Manifest.read(place) == manifest
    open_engine(place).close()


def test_the_plain_graph_stays_when_nothing_is_faster(
    request_: EngineRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "race", lambda engines, _images: [np.full(8, 5.0)] * len(engines))
    _, manifest = tune({tmp_path / "model.engine": request_}, None, None)
    assert manifest.rewrites == () and [trial.is_kept for trial in manifest.tuning] == [True, False, False, False]
    assert "layout" not in manifest.builder.flags


def test_a_layout_that_is_faster_is_what_the_engine_is_opened_with(
    request_: EngineRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race is decided: the plain layout wins."""
    monkeypatch.setattr(
        tuning, "race", lambda engines, _images: [np.full(8, 5.0 - (index == 2)) for index in range(len(engines))]
    )
    place, manifest = tune({tmp_path / "model.engine": request_}, EngineCache(tmp_path / "cache"), None)
    assert manifest.builder.flags["layout"] == "plain" and manifest.rewrites == ()
    levels = []
    session = onnxruntime.InferenceSession

    def noted(model: bytes, options: Any, **others: Any) -> Any:
        levels.append(options.graph_optimization_level)
        return session(model, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    open_engine(place).close()
    assert levels == [onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED]


def test_equal_tuning_is_taken_from_the_cache(
    request_: EngineRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    races: list[int] = []

    def counted(engines: list[object], _images: int) -> list[np.ndarray]:
        races.append(len(engines))
        return [np.full(8, 5.0 - (index == 1)) for index in range(len(engines))]

    monkeypatch.setattr(tuning, "race", counted)
    cache = EngineCache(tmp_path / "cache")
    _, first = tune({tmp_path / "model.engine": request_}, cache, None)
    place, second = tune({tmp_path / "again.engine": replace(request_, command="another")}, cache, None)
    assert races == [4] and second.tuning == first.tuning and second.command == "another"
    assert "these candidates were tuned before" in capsys.readouterr().err
    open_engine(place).close()


def test_a_candidate_that_cannot_be_built_is_none_and_the_first_must_be(
    request_: EngineRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tuning.build

    def build(request: EngineRequest, engine: Path, cache: EngineCache | None = None) -> Manifest:
        if request.rewrites:
            raise CheckFailed("weight x exceeds 65504")
        return real(request, engine, cache)

    monkeypatch.setattr(tuning, "build", build)
    _, manifest = tune({tmp_path / "model.engine": request_}, None, None)
    assert [trial.layout for trial in manifest.tuning] == ["blocked", "plain"]
    assert "no candidate: FP32 with dead-taps, image-pooling, blocked layout: weight x exceeds 65504" in capsys.readouterr().err
    request_.source.write_bytes(b"no model")
    with pytest.raises(UserError):
        tune({tmp_path / "model.engine": request_}, None, None)


def test_a_device_is_refused_where_engines_run(request_: EngineRequest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--device: engines of onnxruntime run here, and are timed; leave it out"):
        tune({tmp_path / "model.engine": request_}, None, DEVICES["orin-nano"])


def test_a_real_race_ends_with_an_engine_that_runs(request_: EngineRequest, tmp_path: Path) -> None:
    place, manifest = tune({tmp_path / "model.engine": request_}, None, None)
    assert sum(trial.is_kept for trial in manifest.tuning) == 1 and all(trial.p50_ms > 0 for trial in manifest.tuning)
    open_engine(place).close()


def test_a_candidate_that_cannot_be_opened_is_none(
    request_: EngineRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All are open at once, and a GPU's memory may not allow that."""
    real, opened = OnnxRuntimeBackend.open, list[str]()

    def open_some(self: OnnxRuntimeBackend, engine: Path, spec: ModelSpec) -> Engine:
        if len(engine.name) == len("0.engine"):  # in the race, not when it was built
            opened.append(engine.name)
            if len(opened) == 2:
                raise CheckFailed("there is no memory for another execution context")
        return real(self, engine, spec)

    monkeypatch.setattr(OnnxRuntimeBackend, "open", open_some)
    _, manifest = tune({tmp_path / "model.engine": request_}, EngineCache(tmp_path / "cache"), None)
    assert len(opened) == 4 and len(manifest.tuning) == 3
    assert "no memory for another execution context" in capsys.readouterr().err


@pytest.mark.parametrize(("device", "compiled"), [("xavier", "7.5"), ("orin-nano", "8.6"), ("RTX 4090", "8.9")])
def test_plans_are_compiled_for_what_is_nearest_to_the_device(
    request_: EngineRequest, tmp_path: Path, device: str, compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    asked: list[tuple[str, ...]] = []

    def plan(self: TensorRTBackend, _model: bytes, _where: str) -> Plan:
        asked.append(self.options.capabilities)
        return Plan(())

    monkeypatch.setattr(TensorRTBackend, "plan", plan)
    tune({tmp_path / "model.engine": replace(request_, backend="tensorrt-rtx")}, None, device_named(device))
    assert set(asked) == {(compiled,)}


@pytest.mark.slow
def test_where_engines_cannot_run_plans_are_ranked(request_: EngineRequest, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    options = TensorRTOptions(("8.9",))
    plain = replace(request_, backend="tensorrt-rtx", options=options)
    requests = {tmp_path / "fp32.engine": plain, tmp_path / "fp16.engine": replace(plain, precision="fp16")}
    place, manifest = tune(requests, None, None)
    assert place == tmp_path / "fp16.engine" and manifest.precision == "fp16" and manifest.timing is None
    assert {trial.precision for trial in manifest.tuning} == {"fp32", "fp16"}
    assert all(trial.is_estimate and not trial.layout for trial in manifest.tuning)
    kept = next(trial for trial in manifest.tuning if trial.is_kept)
    assert kept.p50_ms == min(trial.p50_ms for trial in manifest.tuning)
    assert not (tmp_path / "fp32.engine").exists()
    _, named = tune({tmp_path / "other.engine": plain}, None, DEVICES["orin-nano"])
    assert named.tuning[0].p50_ms > manifest.tuning[0].p50_ms


def test_an_estimate_needs_a_device(request_: EngineRequest, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    for options in (TensorRTOptions(), TensorRTOptions(("7.5",))):
        plain = replace(request_, backend="tensorrt-rtx", options=options)
        with pytest.raises(UserError, match="cannot time engines here.*add --device xavier"):
            tune({tmp_path / "model.engine": plain}, None, None)
