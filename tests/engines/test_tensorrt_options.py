"""What a TensorRT build is asked for, on the real builder of TensorRT-RTX and, for versions that cannot be installed here, on
stand-ins that have exactly the names of their published API and note what is set."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_models import HEIGHT, WIDTH, tiny_deeplab, tiny_spec, write_tiny

from dlv3deploy.core.errors import StaleArtefact, UserError
from dlv3deploy.core.graph import fix_input, ports
from dlv3deploy.core.workspace import manifest_path
from dlv3deploy.engines import memory, tensorrt_backend, timing_cache
from dlv3deploy.engines.build import build
from dlv3deploy.engines.dialect import (
    TENSORRT,
    TENSORRT_RTX,
    configure,
    hold_types,
    network_flags,
    require_options,
    takes_engines_of,
    version_of,
)
from dlv3deploy.engines.fresh import check_fresh
from dlv3deploy.engines.gpu import Gpu
from dlv3deploy.engines.manifest import Builder, Manifest, Target
from dlv3deploy.engines.plans.plan import Kernel, Plan, Tensor
from dlv3deploy.engines.request import EngineRequest
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

pytest.importorskip("onnx")


class Config:
    """A builder's configuration that notes what is set, and has no attribute that its version lacks."""

    def __init__(self, members: list[str]) -> None:
        self.__dict__.update(_members=set(members), flags_set=[], pools={}, values={})

    def __setattr__(self, name: str, value: object) -> None:
        assert name in self._members, name
        self.values[name] = value

    def set_flag(self, flag: str) -> None:
        self.flags_set.append(flag)

    def set_memory_pool_limit(self, pool: str, limit: int) -> None:
        self.pools[pool] = limit


def bindings(shared: Path, version: str) -> Any:
    """Names of a version's bindings; enumerators are their own names, and numbers where they are shifted by."""
    api = json.loads((shared / "tensorrt-api" / f"{version}.json").read_text())
    classes = {name: SimpleNamespace(**{member: member for member in members or []}) for name, members in api.items()}
    flags = api["NetworkDefinitionCreationFlag"]
    numbers = {name: number for number, name in enumerate(("EXPLICIT_BATCH", "STRONGLY_TYPED")) if name in flags}
    classes["NetworkDefinitionCreationFlag"] = SimpleNamespace(**numbers)
    classes["ProfilingVerbosity"] = SimpleNamespace(DETAILED="DETAILED")
    return SimpleNamespace(__version__=version, **classes), Config(api["IBuilderConfig"])


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("version", "flags", "set_"),
    [
        ("8.6.1", 0b01, ["FP16", "INT8", "PREFER_PRECISION_CONSTRAINTS"]),
        ("10.3.0", 0b11, []),
        ("10.16.1", 0b11, []),
        ("11.4.0", 0b10, []),
    ],
)
def test_precisions_are_flags_where_types_are_none(shared: Path, version: str, flags: int, set_: list[str]) -> None:
    module, config = bindings(shared, version)
    assert network_flags(module, TensorRTOptions()) == flags
    configure(module, config, TensorRTOptions(), {"fp16", "int8"})
    assert config.flags_set == set_
    module, config = bindings(shared, version)
    configure(module, config, TensorRTOptions(), set())
    assert config.flags_set == []


@pytest.mark.real_data
@pytest.mark.parametrize("version", ["8.6.1", "10.3.0"])
def test_dla_takes_what_it_can_in_half_precision_and_the_gpu_the_rest(shared: Path, version: str) -> None:
    module, config = bindings(shared, version)
    options = TensorRTOptions(dla_core=1)
    require_options(TENSORRT, module, options)
    assert network_flags(module, options) == 0b01
    configure(module, config, options, set())
    assert config.values["default_device_type"] == "DLA" and config.values["DLA_core"] == 1
    assert config.flags_set == ["GPU_FALLBACK", "FP16", "PREFER_PRECISION_CONSTRAINTS"]


@pytest.mark.real_data
def test_limits_and_compatibility_reach_the_builder(shared: Path) -> None:
    module, config = bindings(shared, "10.16.1")
    configure(module, config, TensorRTOptions((), 64, True, True), set())
    assert config.pools == {"WORKSPACE": 64_000_000}
    assert config.flags_set == ["VERSION_COMPATIBLE"]
    assert config.values["hardware_compatibility_level"] == "AMPERE_PLUS"


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("version", "portable", "options", "says"),
    [
        ("11.4.0", False, TensorRTOptions(dla_core=0), "--dla: tensorrt 11.4.0 does not build for it"),
        ("10.16.1", False, TensorRTOptions(dla_core=0), "--dla: tensorrt 10.16.1 does not build for it"),
        ("rtx-1.7.1", True, TensorRTOptions(dla_core=0), "--dla: tensorrt-rtx"),
        ("rtx-1.7.1", True, TensorRTOptions(version_compatible=True), "--version-compatible"),
        ("rtx-1.7.1", True, TensorRTOptions(hardware_compatible=True), "--hardware-compatible"),
        ("10.3.0", False, TensorRTOptions(("8.9",)), "--target: tensorrt always builds for this machine's GPU"),
    ],
)
def test_what_a_version_cannot_do_is_refused_by_name(
    shared: Path, version: str, portable: bool, options: TensorRTOptions, says: str
) -> None:
    module, _ = bindings(shared, version)
    with pytest.raises(UserError, match=says):
        require_options(TENSORRT_RTX if portable else TENSORRT, module, options)


@pytest.mark.real_data
@pytest.mark.parametrize(("version", "is_held"), [("8.6.1", True), ("10.3.0", False)])
def test_a_weakly_typed_network_keeps_means_and_interpolation_in_single_precision(
    shared: Path, version: str, is_held: bool
) -> None:
    module, _ = bindings(shared, version)
    module.float32 = "float32"
    layers = [
        SimpleNamespace(type=kind, precision=None, get_input=lambda _, dtype=dtype: SimpleNamespace(dtype=dtype))
        for kind, dtype in (("CONVOLUTION", "float32"), ("REDUCE", "float32"), ("RESIZE", "half"), ("SOFTMAX", "float32"))
    ]
    network = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    hold_types(module, network, TensorRTOptions(), {"fp16"})
    assert [layer.precision for layer in layers] == [None, "float32" if is_held else None, None, "float32" if is_held else None]


def test_a_version_is_read_whatever_follows_its_numbers() -> None:
    assert version_of("10.3.0b6")[:3] == (10, 3, 0) and version_of("none") == ()


def test_options_are_in_the_manifest_and_come_back_from_it() -> None:
    options = TensorRTOptions(("8.9",), 64, True, False, None)
    assert options.flags() == {"workspace_mb": 64, "version_compatible": True}
    assert TensorRTOptions.from_flags({"strongly_typed": True, **options.flags()}, ("8.9",)) == options


@pytest.mark.parametrize(
    ("compatible", "built", "installed", "fits"),
    [
        (False, "10.3.0", "10.3.0", True),
        (False, "10.3.0", "10.16.1", False),
        (True, "10.3.0", "10.16.1", True),
        (True, "10.16.1", "10.3.0", False),
        (True, "10.3.0", "11.4.0", False),
        (True, "10.3.0b6", "10.3.0b7", True),
        (False, "10.3.0b6", "10.3.0b7", False),
    ],
)
def test_a_version_compatible_engine_is_for_later_versions_of_its_major(
    compatible: bool, built: str, installed: str, fits: bool
) -> None:
    assert takes_engines_of(TensorRTOptions(version_compatible=compatible), built, installed) == fits


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    source = write_tiny(tmp_path / "model.onnx")
    build(EngineRequest(source, source, tiny_spec(), "fp32", "onnxruntime"), tmp_path / "model.engine")
    return tmp_path / "model.engine"


@pytest.mark.parametrize(
    ("flag", "builder", "target", "fits"),
    [
        ("version_compatible", "10.16.1", Target("Orin", "8.7", "12.6"), True),
        ("hardware_compatible", "10.16.1", Target("Orin", "8.7", "12.6"), False),
        ("hardware_compatible", "10.3.0", Target("RTX 4090", "8.9", "13.0"), True),
        ("hardware_compatible", "10.3.0", Target("Xavier", "7.2", "12.6"), False),
        ("version_compatible", "10.3.0", Target("RTX 4090", "8.9", "12.6"), False),
    ],
)
def test_a_compatible_engine_is_refused_only_where_it_does_not_run(
    engine: Path, flag: str, builder: str, target: Target, fits: bool
) -> None:
    flags = {flag: True}
    made = replace(Manifest.read(engine), builder=Builder("tensorrt", "10.3.0", flags), target=Target("Orin", "8.7", "12.6"))
    made.write(manifest_path(engine))
    here = Builder("tensorrt", builder, flags)
    if fits:
        check_fresh(engine, Manifest.read(engine), here, target)
    else:
        with pytest.raises(StaleArtefact):
            check_fresh(engine, Manifest.read(engine), here, target)


@pytest.fixture
def graph() -> Any:
    return fix_input(tiny_deeplab(), (1, 3, 64, 96))


def test_memory_that_is_short_is_said_before_the_build(graph: Any, capsys: pytest.CaptureFixture[str]) -> None:
    needed = memory.needed_bytes(graph)
    assert memory.workspace_on_shared_memory(graph, needed + 2_000_000_000) == 512
    assert capsys.readouterr().err == ""
    assert memory.workspace_on_shared_memory(graph, needed - 100_000_000) == memory.LEAST_WORKSPACE_MB
    assert "memory is short: " in capsys.readouterr().err
    assert memory.workspace_on_shared_memory(graph, None) is None


def test_needed_memory_counts_weights_and_the_largest_maps(graph: Any) -> None:
    weights = sum(len(weight.raw_data) for weight in graph.graph.initializer)
    assert memory.needed_bytes(graph) >= memory.RUNTIME_BYTES + 3 * weights + 4 * 3 * 64 * 96
    larger = fix_input(tiny_deeplab(dynamic=True), (1, 3, 640, 960))
    assert memory.needed_bytes(larger) > memory.needed_bytes(graph) + 50 * 4 * 3 * 64 * 96


def test_available_memory_is_read_from_the_system(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    1234 kB\n")
    assert memory.available_bytes(tmp_path / "meminfo") == 1234 * 1024
    assert memory.available_bytes(tmp_path / "none") is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\n")
    assert memory.available_bytes(tmp_path / "meminfo") is None


@pytest.fixture
def compiler() -> Any:
    return pytest.importorskip("tensorrt_rtx")


@pytest.mark.slow
def test_a_real_builder_takes_a_workspace_limit(compiler: Any, graph: Any, tmp_path: Path) -> None:
    source = write_tiny(tmp_path / "model.onnx")
    request = EngineRequest(source, source, tiny_spec(), "fp32", "tensorrt-rtx", TensorRTOptions(("8.9",), 32))
    manifest = build(request, tmp_path / "model.engine")
    assert manifest.builder.flags == {"strongly_typed": True, "workspace_mb": 32}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_real_timing_cache_is_kept_and_a_damaged_one_begun_anew(compiler: Any, tmp_path: Path) -> None:
    """TensorRT-RTX has the calls and times nothing; what a cache is worth needs TensorRT and a GPU."""
    config = compiler.Builder(compiler.Logger(compiler.Logger.ERROR)).create_builder_config()
    file = tmp_path / "timing" / "a.cache"
    for held in (None, b"", b"no cache"):
        if held is not None:
            file.write_bytes(held)
        with timing_cache.timing_cache(config, file):
            pass
        assert len(file.read_bytes()) > len(b"no cache")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_timing_cache_that_cannot_be_kept_costs_no_engine(
    compiler: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compiler.Builder(compiler.Logger(compiler.Logger.ERROR)).create_builder_config()
    (tmp_path / "file").write_text("")
    with timing_cache.timing_cache(config, tmp_path / "file" / "a.cache"):
        built = True
    assert built and "kernel times are not kept" in capsys.readouterr().err


def test_a_timing_cache_is_of_one_device_and_version() -> None:
    builder, target = Builder("tensorrt", "10.3.0"), Target("Orin (nvgpu)", "8.7", "12.6")
    name = timing_cache.timing_cache_file(builder, target).name
    assert name == "tensorrt-10.3.0-orin-nvgpu-8.7-12.6.cache"
    for other in ((replace(builder, version="10.4.0"), target), (builder, replace(target, driver="13.0"))):
        assert timing_cache.timing_cache_file(*other).name != name


@pytest.mark.slow
@pytest.mark.real_data
def test_ctrl_c_cancels_a_build_and_leaves_the_older_engine(compiler: Any, shared: Path, tmp_path: Path) -> None:
    """In a process of its own, for signals reach the main thread alone; the builder is TensorRT-RTX's, and says what it did."""
    program = tmp_path / "interrupted.py"
    program.write_text(PROGRAM)
    paths = os.pathsep.join(str(folder) for folder in Path(__file__).parents[1:3])
    command = [sys.executable, str(program), str(tmp_path), str(shared / "models" / "deeplabv3_mnv2_camvid.onnx")]
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 0 and rest == "cancelled\ninterrupted, engine kept\n"


PROGRAM = """
import sys
from pathlib import Path
from dlv3deploy.core.graph import fix_input, load_onnx
from dlv3deploy.engines import build_progress, tensorrt_backend
from dlv3deploy.engines.release import release
from dlv3deploy.engines.dialect import TENSORRT_RTX
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

engine = Path(sys.argv[1]) / "model.engine"
engine.write_bytes(b"older")
real, logs = build_progress._monitor, []

class Log(tensorrt_backend._Log):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        logs.append(self)

def monitor(*arguments):
    made = real(*arguments)
    begin = type(made).phase_start
    def phase_start(self, name, parent, steps):
        if parent is None:
            print("building", flush=True)
        begin(self, name, parent, steps)
    type(made).phase_start = phase_start
    return made

build_progress._monitor, tensorrt_backend._Log = monitor, Log
backend = tensorrt_backend.TensorRTBackend(TENSORRT_RTX, TensorRTOptions(("8.9",)))
model = fix_input(load_onnx(Path(sys.argv[2])), (1, 3, 360, 480)).SerializeToString()
try:
    release(engine, lambda fresh: backend.build(model, fresh, "model"))
except KeyboardInterrupt:
    print("cancelled" if any("cancel" in error.lower() for log in logs for error in log.errors) else "finished", flush=True)
    print("interrupted, engine", "kept" if engine.read_bytes() == b"older" else "lost", flush=True)
"""


def test_what_a_weakly_typed_network_runs_in_is_read_from_its_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TensorRT 8 may run any layer in another type than its graph's; the engine that says so is played."""
    tensor = [Tensor("map", (1, 8, 4, 4), kind) for kind in ("Float", "Half")]
    kernels = tuple(Kernel(name, "CaskConvolution", (one,), (), (), (name,)) for name, one in zip("ab", tensor, strict=True))
    backend = TensorRTBackend(TENSORRT)
    monkeypatch.setattr(tensorrt_backend, "load_dialect", lambda _: SimpleNamespace(__version__="8.6.1"))
    monkeypatch.setattr(TensorRTBackend, "runs_here", lambda _self: True)
    monkeypatch.setattr(TensorRTBackend, "plan_of", lambda _self, _engine: Plan(kernels))
    typed = {"a": "fp16", "b": "fp16", "gone": "fp16"}
    assert backend.layer_precision(tmp_path / "model.engine", typed) == {"a": "fp32", "b": "fp16", "gone": "fp16"}
    strong = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1))
    monkeypatch.setattr(tensorrt_backend, "load_dialect", lambda _: strong)
    assert backend.layer_precision(tmp_path / "model.engine", typed) == typed


def test_memory_is_counted_for_every_image_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a file that leaves its size open: the graph that is counted is the one that is built."""
    found: list[tuple[int | None, ...]] = []
    monkeypatch.setattr(tensorrt_backend, "find_gpu", lambda: Gpu("Orin", "8.7", "12.6", shares_memory=True))
    monkeypatch.setattr(
        tensorrt_backend,
        "workspace_on_shared_memory",
        lambda model, _available: (found.append(ports(model, "it")[0].shape), 256)[1],
    )
    opened = fix_input(tiny_deeplab(), ("batch", 3, HEIGHT, WIDTH))
    options = TensorRTBackend(TENSORRT, TensorRTOptions(most_images=8)).fitted(lambda: opened)
    assert found == [(8, 3, HEIGHT, WIDTH)] and options.workspace_mb == 256
