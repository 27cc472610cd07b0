"""Engines built for real: ONNX Runtime's, and TensorRT-RTX's, which builds on machines without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_models import HEIGHT, WIDTH, tiny_deeplab, tiny_spec, write_tiny

from dlv3deploy.calibration.calibrate import Request, calibrate
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.images import list_images
from dlv3deploy.core.workspace import manifest_path
from dlv3deploy.engines.build import build
from dlv3deploy.engines.manifest import Manifest
from dlv3deploy.engines.open import open_engine
from dlv3deploy.engines.precision import to_float16
from dlv3deploy.engines.prepare import layer_precision
from dlv3deploy.engines.request import EngineRequest
from dlv3deploy.engines.rewrites import certified
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "model.onnx")


@pytest.fixture
def int8(source: Path, scenes: Path) -> Path:
    path = source.with_name("model.int8.onnx")
    request = Request(source, tiny_spec(), list_images(scenes / "train" / "images")[:4], "min-max")
    calibrate(request, path, source.with_name("calibration.json"))
    return path


def request_for(
    source: Path, precision: str = "fp32", backend: str = "onnxruntime", onnx_path: Path | None = None
) -> EngineRequest:
    return EngineRequest(onnx_path or source, source, tiny_spec(), precision, backend)  # type: ignore[arg-type]  # texts of parameters are str


def int8_convolutions(engine: Path) -> int:
    """How many convolutions ONNX Runtime really runs on integers."""
    return sum(node.op_type == "QLinearConv" for node in onnx.load(str(engine)).graph.node)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32)


def test_an_onnxruntime_engine_computes_what_its_onnx_file_does(source: Path, tmp_path: Path) -> None:
    build(request_for(source), tmp_path / "model.engine")
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    with open_engine(tmp_path / "model.engine") as engine:
        np.testing.assert_allclose(engine.infer(image()), session.run(None, {"image": image()})[0], atol=1e-5)


@pytest.mark.parametrize("asked", [True, False])
def test_an_unproved_rewrite_fails_the_build_only_where_it_was_asked_for(
    source: Path, tmp_path: Path, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certified, "is_proved", lambda *_: False)
    request = replace(request_for(source), rewrites=("image-pooling",), asked=asked)
    if asked:
        with pytest.raises(CheckFailed, match="after the rewrites image-pooling"):
            build(request, tmp_path / "model.engine")
        assert not (tmp_path / "model.engine").exists()
    else:
        assert build(request, tmp_path / "model.engine").rewrites == ()


def test_the_manifest_says_what_the_engine_is(source: Path, int8: Path, tmp_path: Path) -> None:
    engine = tmp_path / "model.engine"
    made = build(request_for(source, "int8", onnx_path=int8), engine)
    read = Manifest.read(engine)
    assert read == made
    assert read.onnx_sha256 == sha256_of(source)
    assert read.engine_sha256 == sha256_of(engine)
    assert read.builder.version == onnxruntime.__version__
    assert list(read.layer_precision.values()).count("int8") == int8_convolutions(engine)
    assert len(read.layer_precision) == 8
    assert read.timing is not None
    assert 0 < read.timing.p50_ms <= read.timing.p90_ms


def test_a_graph_of_open_size_becomes_an_engine_of_fixed_size(tmp_path: Path) -> None:
    source = write_tiny(tmp_path / "model.onnx", dynamic=True)
    spec = replace(tiny_spec(), input=replace(tiny_spec().input, dynamic_size=True))
    build(replace(request_for(source), spec=spec), tmp_path / "model.engine")
    with open_engine(tmp_path / "model.engine") as engine:
        assert engine.input_shape == (1, 3, HEIGHT, WIDTH)
        assert not engine.spec.input.dynamic_size


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_floating_point_engines_without_a_gpu(source: Path, tmp_path: Path, precision: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine = tmp_path / "model.engine"
    manifest = build(request_for(source, precision, "tensorrt-rtx"), engine)
    assert engine.stat().st_size > 10_000
    assert set(manifest.layer_precision.values()) == {precision}


def test_tensorrt_rtx_accepts_the_int8_placement(source: Path, int8: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    manifest = build(request_for(source, "int8", "tensorrt-rtx", int8), tmp_path / "model.engine")
    assert list(manifest.layer_precision.values()).count("int8") == 7


def test_int8_is_held_against_half_precision_by_plans_where_nothing_runs(source: Path, int8: Path, tmp_path: Path) -> None:
    """TensorRT-RTX 1.7 writes floating point behind every INT8 convolution, and so INT8 moves more than FP16."""
    pytest.importorskip("tensorrt_rtx")
    request = replace(request_for(source, "int8", "tensorrt-rtx", int8), options=TensorRTOptions(("8.9",)))
    gate = build(request, tmp_path / "model.engine").gate
    assert gate is not None and gate.timing is None and gate.precision == "fp16"
    assert gate.moved is not None and gate.int8_moved is not None and gate.int8_moved > gate.moved > 0
    assert Manifest.read(tmp_path / "model.engine").gate == gate


def test_int8_is_timed_beside_floating_point_where_it_runs(source: Path, int8: Path, tmp_path: Path) -> None:
    gate = build(request_for(source, "int8", onnx_path=int8), tmp_path / "model.engine").gate
    assert gate is not None and gate.timing is not None and gate.timing.p50_ms > 0
    assert (gate.precision, gate.moved, gate.int8_moved) == ("fp32", None, None)


def test_tensorrt_rtx_builds_for_named_gpus_and_refuses_unknown_ones(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    engine = tmp_path / "model.engine"
    manifest = build(replace(request_for(source, "fp16", "tensorrt-rtx"), options=TensorRTOptions(("8.6", "sm_89"))), engine)
    assert manifest.target.compute_capability == "8.6, sm_89"
    before = engine.read_bytes()
    with pytest.raises(UserError, match="sm_86"):
        build(replace(request_for(source, "fp16", "tensorrt-rtx"), options=TensorRTOptions(("sm_12",))), engine)
    assert engine.read_bytes() == before


def test_tensorrt_names_the_node_that_it_refuses(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = onnx.load(str(source))
    strange = onnx.helper.make_node("Strange", ["scores"], ["stranger"], name="the_strange_one", domain="com.example")
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    model.graph.node.append(strange)
    model.graph.output[0].name = "stranger"
    source.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="the_strange_one"):
        build(request_for(source, "fp32", "tensorrt-rtx"), tmp_path / "model.engine")
    assert not (tmp_path / "model.engine").exists()


def test_full_tensorrt_is_refused_before_anything_is_loaded_where_there_is_no_gpu(source: Path, tmp_path: Path) -> None:
    from dlv3deploy.engines.gpu import find_gpu

    if find_gpu() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="this machine has none"):
        build(request_for(source, "fp16", "tensorrt"), tmp_path / "model.engine")


def test_a_quantised_file_is_not_passed_off_as_floating_point(int8: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is quantised"):
        build(request_for(int8, "fp32"), tmp_path / "model.engine")


def test_a_file_exported_anew_while_the_engine_is_built_makes_it_stale(source: Path, tmp_path: Path, monkeypatch) -> None:
    from dlv3deploy.core.errors import StaleArtefact
    from dlv3deploy.engines.manifest import Timing

    def export_meanwhile(*_: object) -> Timing:
        write_tiny(source, seed=8)
        return Timing(1.0, 1.0, 3)

    monkeypatch.setattr("dlv3deploy.engines.build.measure_latency", export_meanwhile)
    build(request_for(source), tmp_path / "model.engine")
    with pytest.raises(StaleArtefact, match=r"model\.onnx"):
        open_engine(tmp_path / "model.engine")


def test_a_manifest_that_cannot_be_written_leaves_the_older_engine(source: Path, tmp_path: Path) -> None:
    engine = tmp_path / "model.engine"
    build(request_for(source), engine)
    before = engine.read_bytes()
    manifest_path(engine).unlink()
    manifest_path(engine).mkdir()
    write_tiny(source, seed=8)
    with pytest.raises(UserError, match="is a folder"):
        build(request_for(source), engine)
    assert engine.read_bytes() == before


def test_an_unknown_backend_is_refused_with_those_that_exist(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="onnxruntime, tensorrt, tensorrt-rtx"):
        build(request_for(source, "fp32", "openvino"), tmp_path / "model.engine")


def test_a_build_that_fails_leaves_the_older_engine_in_place(source: Path, tmp_path: Path, monkeypatch) -> None:
    engine = tmp_path / "model.engine"
    build(request_for(source), engine)
    before = engine.read_bytes(), manifest_path(engine).read_bytes()
    monkeypatch.setattr("dlv3deploy.engines.build.measure_latency", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build(request_for(source), engine)
    assert (engine.read_bytes(), manifest_path(engine).read_bytes()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.engine", "model.engine.json", "model.onnx"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from tiny_models import tiny_spec
from dlv3deploy.core.errors import UserError
from dlv3deploy.engines.build import build
from dlv3deploy.engines.request import EngineRequest
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
source = Path({source!r})
try:
    build(EngineRequest(source, source, tiny_spec(), "fp32", {backend!r}), Path({engine!r}))
except UserError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt-rtx"])
def test_a_disk_that_fills_leaves_the_older_engine_in_place(source: Path, tmp_path: Path, backend: str) -> None:
    if backend == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx")
    engine = tmp_path / "model.engine"
    build(request_for(source, backend=backend), engine)
    before = engine.read_bytes()
    program = FULL_DISK.format(path=[p for p in sys.path if p], source=str(source), backend=backend, engine=str(engine))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=False)
    assert "refused:" in done.stdout, done.stderr
    assert engine.read_bytes() == before
    assert not list(tmp_path.glob("*partial*"))


def test_float16_keeps_the_scores_and_the_types_of_input_and_output(source: Path) -> None:
    half = to_float16(onnx.load(str(source)))
    sessions = [
        onnxruntime.InferenceSession(m, providers=["CPUExecutionProvider"])
        for m in (source.read_bytes(), half.SerializeToString())
    ]
    full, reduced = (session.run(None, {"image": image()})[0] for session in sessions)
    assert reduced.dtype == np.float32
    assert set(layer_precision(half).values()) == {"fp16"}
    assert 0 < np.abs(full - reduced).max() / np.abs(full).max() < 5e-3


def test_weights_beyond_float16_are_refused() -> None:
    model = tiny_deeplab()
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(weight.dims), 1e5, np.float32), weight.name))
    with pytest.raises(CheckFailed, match=weight.name):
        to_float16(model)


def test_float16_on_a_cpu_is_refused_with_what_would_work(source: Path, tmp_path: Path) -> None:
    from dlv3deploy.engines.gpu import find_gpu

    if find_gpu() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="--fp32"):
        build(request_for(source, "fp16"), tmp_path / "model.engine")
