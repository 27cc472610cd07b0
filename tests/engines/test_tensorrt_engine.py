"""TensorRT's engine around a network that ONNX Runtime plays, on a device that this processor plays: buffers, batches, frames
in and masks out. What TensorRT itself does is tested on GPUs (`test_backends.py`, `gpu`)."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance import EngineConformance
from host_cuda import HostDevice
from tiny_models import HEIGHT, WIDTH, tiny_spec, write_tiny

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.core.steadiness import Steadiness
from dlv3deploy.core.strategy import Strategy
from dlv3deploy.engines import tensorrt_engine as module
from dlv3deploy.engines.cuda.source import FRAMES, MASKS
from dlv3deploy.engines.dialect import TENSORRT
from dlv3deploy.engines.tensorrt_engine import TensorRTEngine
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler for the host's build")
Open = Callable[..., TensorRTEngine]


class PlayedBindings:
    """As much of `tensorrt` as an engine that is loaded asks for."""

    class TensorIOMode:
        INPUT, OUTPUT = "input", "output"

    @staticmethod
    def nptype(kind: Any) -> Any:
        return kind


class PlayedEngine:
    """One input and one output at addresses, for 1 to `most` images where that is more than one."""

    num_io_tensors = 2

    def __init__(self, model: Path, most: int, kind: Any, spoil: bool) -> None:
        self.session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self.names = [self.session.get_inputs()[0].name, self.session.get_outputs()[0].name]
        self.most, self.kind, self.spoil = most, kind, spoil
        self.addresses: dict[str, int] = {}
        self.images = 1

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return PlayedBindings.TensorIOMode.INPUT if name == self.names[0] else PlayedBindings.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, _name: str) -> Any:
        return self.kind

    def get_tensor_profile_shape(self, _name: str, _profile: int) -> list[tuple[int, ...]]:
        return [(images, 3, HEIGHT, WIDTH) for images in (1, 1, self.most)]

    def create_execution_context(self) -> PlayedContext:
        return PlayedContext(self)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1 if self.most > 1 else 1, *self.shape(name)[1:])

    def shape(self, name: str) -> tuple[int, ...]:
        own = (3, HEIGHT, WIDTH) if name == self.names[0] else (len(tiny_spec().classes), HEIGHT // 4, WIDTH // 4)
        return (self.images, *own)


class PlayedContext:
    def __init__(self, engine: PlayedEngine) -> None:
        self.engine = engine

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> None:
        assert 1 <= shape[0] <= self.engine.most
        self.engine.images = shape[0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.engine.shape(name)

    def set_tensor_address(self, name: str, address: int) -> None:
        self.engine.addresses[name] = address

    def execute_async_v3(self, _stream: int) -> bool:
        given, made = (self._at(name) for name in self.engine.names)
        scores = [self.engine.session.run(None, {self.engine.names[0]: image[None].astype(np.float32)})[0] for image in given]
        made[:] = np.concatenate(scores).astype(self.engine.kind)
        if self.engine.spoil:
            made[-1, 0, 0, 0] = np.nan
        return True

    def _at(self, name: str) -> np.ndarray:
        shape, kind = self.engine.shape(name), np.dtype(self.engine.kind)
        size = int(np.prod(shape)) * kind.itemsize
        return np.frombuffer((ctypes.c_uint8 * size).from_address(self.engine.addresses[name]), kind).reshape(shape)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> HostDevice:
    return HostDevice(tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def device(compiled: HostDevice, tmp_path: Path) -> HostDevice:
    made, known = HostDevice(tmp_path), {source.name: compiled.kernels(source) for source in (FRAMES, MASKS)}
    made.kernels = lambda source: known[source.name]  # type: ignore[method-assign]  # compiled once
    return made


@pytest.fixture
def opened(device: HostDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    def open_it(most: int = 1, kind: Any = np.float32, spoil: bool = False, spec: ModelSpec | None = None) -> TensorRTEngine:
        played = PlayedEngine(write_tiny(tmp_path / "model.onnx"), most, kind, spoil)
        loaded = module._Loaded(PlayedBindings, None, played, "TensorRT 0, a processor that plays a GPU")
        monkeypatch.setattr(module, "_load", lambda *_: loaded)
        monkeypatch.setattr(module, "open_device", lambda: device)
        return TensorRTEngine(TENSORRT, tmp_path / "model.engine", spec or tiny_spec(), TensorRTOptions())

    return open_it


class TestTensorRTOnAPlayedDevice(EngineConformance):
    @pytest.fixture
    def engine(self, opened: Open) -> TensorRTEngine:
        return opened()


class TestWithAnOpenBatchInHalfPrecision(EngineConformance):
    @pytest.fixture
    def engine(self, opened: Open) -> TensorRTEngine:
        return opened(most=3, kind=np.float16)


def frames() -> list[np.ndarray]:
    """Of several sizes, in turns."""
    random = np.random.default_rng(0)
    return [
        random.integers(0, 256, (*size, 3), np.uint8) for size in [(97, 131), (HEIGHT, WIDTH), (97, 131), (48, 200), (31, 7)]
    ]


def plain_masks(tmp_path: Path) -> list[np.ndarray]:
    from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine

    with OnnxRuntimeEngine.open(write_tiny(tmp_path / "plain.onnx"), tiny_spec()) as engine:
        return [Segmenter(engine)(frame) for frame in frames()]


@pytest.mark.parametrize("most", [1, 2, 8])
def test_frames_become_the_masks_of_the_cpu(opened: Open, tmp_path: Path, most: int) -> None:
    with opened(most) as engine:
        assert engine.takes_frames
        segmenter = Segmenter(engine)
        for found in (segmenter.masks(frames()), [segmenter(frame) for frame in frames()]):
            for mask, wanted in zip(found, plain_masks(tmp_path), strict=True):
                np.testing.assert_array_equal(mask, wanted)


def test_a_mask_may_have_another_size_than_its_frame(opened: Open, tmp_path: Path) -> None:
    from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine

    with opened() as engine, OnnxRuntimeEngine.open(write_tiny(tmp_path / "plain.onnx"), tiny_spec()) as plain:
        for size in [(200, 90), (11, 300)]:
            mask = Segmenter(engine)(frames()[0], size)
            np.testing.assert_array_equal(mask, Segmenter(plain)(frames()[0], size))


def test_nothing_that_is_asked_for_stays_open(opened: Open, device: HostDevice) -> None:
    with opened() as engine:
        segmenter = Segmenter(engine)
        for side in range(20, 40):  # more geometries than are kept
            segmenter(np.zeros((side, side, 3), np.uint8))
        assert sum(made.is_open for made in device.made) < 80
    assert len(device.made) > 100
    assert not any(made.is_open for made in device.made)


def test_scores_that_are_not_finite_are_told(opened: Open) -> None:
    with (
        opened(spoil=True) as engine,
        pytest.raises(CheckFailed, match="a processor that plays a GPU returned scores that are"),
    ):
        Segmenter(engine)(frames()[0])


@pytest.mark.parametrize("options", [{"steadiness": Steadiness(0.5)}, {"strategy": Strategy((1.0,), flip=True)}], ids=str)
def test_what_needs_scores_gets_them(opened: Open, options: dict[str, Any]) -> None:
    with opened() as engine:
        mask = Segmenter(engine, **options)(frames()[0])
        assert mask.shape == frames()[0].shape[:2]


def test_without_a_compiler_the_processor_does_it_and_says_so(
    opened: Open, device: HostDevice, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_source: Any) -> Any:
        raise UserError("frames.cu", "needs NVRTC, which is not there", "install it")

    device.kernels = missing  # type: ignore[method-assign]  # a machine without one
    with opened() as engine:
        assert not engine.takes_frames
        assert "frames are prepared and masks made on the processor" in capsys.readouterr().err
        for frame, wanted in zip(frames(), plain_masks(tmp_path), strict=True):
            np.testing.assert_array_equal(Segmenter(engine)(frame), wanted)
    assert not any(made.is_open for made in device.made)


def test_another_number_of_classes_than_the_spec_s_is_told(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(tiny_spec(), classes=Classes(("road", "car"), ((1, 2, 3), (4, 5, 6))))
    with pytest.raises(CheckFailed, match=f"returned scores of {len(tiny_spec().classes)} classes, the model has 2"):
        opened(spec=other)


def test_numbers_that_the_kernels_do_not_read_go_the_processor_s_way(opened: Open) -> None:
    with opened(kind=np.int8) as engine:
        assert not engine.takes_frames


def test_more_images_than_it_takes_are_a_programming_error(opened: Open) -> None:
    with opened(most=2) as engine, pytest.raises(ValueError, match="takes 2 images at most, was given 5"):
        engine.infer_frames(frames(), Segmenter(engine).input)
