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
from host_cuda import HostDevice, HostGraph, HostStream
from tiny_models import HEIGHT, WIDTH, tiny_spec, write_tiny
from video_stand_ins import HANG_LIMIT_S, HeldSink, ListSink, ScriptedSource

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.segmenter import Answer, Segmenter
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.core.steadiness import Steadiness
from dlv3deploy.core.strategy import Strategy
from dlv3deploy.engines import tensorrt_engine as module
from dlv3deploy.engines.cuda.source import FRAMES, MASKS
from dlv3deploy.engines.dialect import TENSORRT
from dlv3deploy.engines.tensorrt_engine import TensorRTEngine
from dlv3deploy.engines.tensorrt_options import TensorRTOptions
from dlv3deploy.video import Overlay, Segmented, Sink, Stream, run_pipeline, run_streams
from dlv3deploy.video.writer import RESULTS_WAITING

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
        return (-1 if self.most > 1 else 1, *self.of_one(name))

    def of_one(self, name: str) -> tuple[int, ...]:
        return (3, HEIGHT, WIDTH) if name == self.names[0] else (len(tiny_spec().classes), HEIGHT // 4, WIDTH // 4)


class PlayedContext:
    def __init__(self, engine: PlayedEngine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.images = 1

    def set_input_shape(self, _name: str, shape: tuple[int, ...]) -> bool:
        assert 1 <= shape[0] <= self.engine.most
        self.images = shape[0]
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.images, *self.engine.of_one(name))

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        HostStream.by_handle[stream].queue(self._execute)
        return True

    def _execute(self) -> None:
        given, made = (self._at(name) for name in self.engine.names)
        scores = [self.engine.session.run(None, {self.engine.names[0]: image[None].astype(np.float32)})[0] for image in given]
        made[:] = np.concatenate(scores).astype(self.engine.kind)
        if self.engine.spoil:
            made[-1, 0, 0, 0] = np.nan

    def _at(self, name: str) -> np.ndarray:
        shape, kind = self.get_tensor_shape(name), np.dtype(self.engine.kind)
        size = int(np.prod(shape)) * kind.itemsize
        return np.frombuffer((ctypes.c_uint8 * size).from_address(self.addresses[name]), kind).reshape(shape)


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
        engine.queue_frames(frames(), Segmenter(engine).input)


def test_what_comes_again_is_one_graph_and_gives_the_same_masks(opened: Open, tmp_path: Path, device: HostDevice) -> None:
    with opened() as engine:
        segmenter, (frame, *_), (wanted, *_) = Segmenter(engine), frames(), plain_masks(tmp_path)
        launched = []
        for turn in range(5):
            before = HostGraph.launched
            shown = np.ascontiguousarray(np.roll(frame, turn, axis=1))
            masks = segmenter(shown), segmenter(frame)
            np.testing.assert_array_equal(masks[1], wanted)
            launched.append(HostGraph.launched - before)
        assert launched == [2, 4, 4, 4, 4]  # the network and the mask of each frame, but for the first time
    assert not any(made.is_open for made in device.made)


def test_frames_of_many_sizes_come_out_right_whatever_is_known_of_them(opened: Open, tmp_path: Path) -> None:
    """Memory of a size is given back for another one's, and graphs that use it with it."""
    with opened() as engine:
        segmenter, pairs = Segmenter(engine), list(zip(frames(), plain_masks(tmp_path), strict=True))
        random = np.random.default_rng(0)
        for index in random.integers(0, len(pairs), 60):
            frame, wanted = pairs[index]
            np.testing.assert_array_equal(segmenter(frame), wanted)
            if random.random() < 0.3:
                side = int(random.integers(20, 60))
                segmenter(np.zeros((side, side, 3), np.uint8))


def test_what_cannot_be_captured_is_run_kernel_by_kernel_and_said_once(
    opened: Open, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_stream: HostStream, _work: Any) -> Any:
        raise CheckFailed("CUDA call failed: cudaErrorStreamCaptureUnsupported")

    monkeypatch.setattr(HostStream, "capture", refuse)
    with opened() as engine:
        segmenter, wanted = Segmenter(engine), plain_masks(tmp_path)[0]
        for _ in range(4):
            np.testing.assert_array_equal(segmenter(frames()[0]), wanted)
    assert (
        capsys.readouterr().err.count("is run without a CUDA graph, kernel by kernel: CUDA call failed: cudaErrorStream") == 1
    )


def test_pycuda_has_no_graphs_and_needs_none(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostStream, "capture", lambda _stream, _work: None)
    with opened() as engine:
        for _ in range(4):
            np.testing.assert_array_equal(Segmenter(engine)(frames()[0]), plain_masks(tmp_path)[0])


def test_an_open_batch_is_never_a_graph_of_the_network(opened: Open) -> None:
    """A graph is of the shapes that an execution context had, and those change here."""
    with opened(most=4) as engine:
        before = HostGraph.launched
        for count in (1, 3, 1, 3):
            engine.wait(engine.queue_frames([frames()[0]] * count, Segmenter(engine).input))
        assert HostGraph.launched == before and engine.overlap(2) == 1


def test_batches_overlap_in_lanes_of_their_own(opened: Open, tmp_path: Path, device: HostDevice) -> None:
    """The second is queued before anything of the first was done, and neither touches the other."""
    with opened() as engine:
        segmenter, wanted = Segmenter(engine), plain_masks(tmp_path)
        assert segmenter.overlap(2) == 2 == segmenter.overlap(2)
        begun: list[tuple[int, Any]] = []
        for turn in range(3):
            for index, frame in enumerate(frames()):
                begun.append((index, segmenter.begin(list(segmenter.views(frame)))))
                if len(begun) == 2:
                    first, answers = begun.pop(0)
                    np.testing.assert_array_equal(segmenter.finish(answers), wanted[first], err_msg=f"{turn}, {first}")
    assert not any(made.is_open for made in device.made)


def test_without_memory_for_a_second_lane_there_is_one(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened() as engine:
        monkeypatch.setattr(PlayedEngine, "create_execution_context", lambda _self: None)
        segmenter = Segmenter(engine)
        assert segmenter.overlap(2) == 1
        assert "frames are worked on one after the other: TensorRT 0" in capsys.readouterr().err
        np.testing.assert_array_equal(segmenter(frames()[0]), plain_masks(tmp_path)[0])


def test_a_run_of_a_video_begins_a_frame_before_the_one_before_is_read(opened: Open, tmp_path: Path) -> None:
    class Kept(Sink):
        def __init__(self) -> None:
            self.results: list[Segmented] = []

        def write(self, result: Segmented) -> None:
            self.results.append(result)

        def close(self) -> None: ...

    with opened() as engine:
        order: list[str] = []

        class Noted(Segmenter):
            def begin(self, views: Any) -> list[Answer]:
                order.append("begin")
                return super().begin(views)

            def finish(self, answers: Any, size: Any = None) -> Any:
                order.append("finish")
                return super().finish(answers, size)

        def ran(source: ScriptedSource, most: int | None = None) -> str:
            order.clear()
            sink = Kept()
            streams, overlay = [Stream(source, sink)], Overlay(tiny_spec().classes)
            (facts,) = run_streams(streams, Noted(engine), overlay, max_frames=most, within_s=HANG_LIMIT_S)
            assert facts.frames == order.count("finish") == len(sink.results)
            for result in sink.results:
                np.testing.assert_array_equal(result.mask, Segmenter(engine)(result.frame.pixels))
            return " ".join(order)

        assert ran(ScriptedSource(frames=4, live=False)) == "begin begin finish begin finish begin finish finish"
        assert ran(ScriptedSource(frames=4, live=False), most=2) == "begin begin finish finish"
        assert "begin begin" not in ran(ScriptedSource(frames=40, every_s=0.01), most=5)  # whose frames would grow old


def test_pictures_are_painted_where_the_masks_are_made(opened: Open, tmp_path: Path, device: HostDevice) -> None:
    with opened() as engine:
        segmenter = Segmenter(engine)
        for overlay in (Overlay(tiny_spec().classes, 0.5), Overlay(tiny_spec().classes, 0.8)):
            for _ in range(2):
                for frame, wanted in zip(frames(), plain_masks(tmp_path), strict=True):
                    answers = segmenter.begin(list(segmenter.views(frame)))
                    mask, painted = segmenter.finish_painted(answers, overlay.paint)
                    np.testing.assert_array_equal(mask, wanted)
                    assert painted is not None
                    given = painted.copy()
                    drawn, plain = overlay(frame, mask, painted), overlay(frame, mask)
                    assert np.abs(drawn.astype(int) - plain).max() <= 1 and (given != frame).any()
        assert segmenter.finish_painted(segmenter.begin(list(segmenter.views(frame))), None)[1] is None
    assert not any(made.is_open for made in device.made)


def test_a_video_of_pictures_shows_what_the_device_painted(opened: Open) -> None:
    class Shown(Sink):
        wants_overlay = True

        def __init__(self) -> None:
            self.pictures: list[tuple[np.ndarray, np.ndarray]] = []

        def write(self, result: Segmented) -> None:
            self.pictures.append((result.shown(), Overlay(tiny_spec().classes)(result.frame.pixels, result.mask)))

        def close(self) -> None: ...

    class Asked(Overlay):
        def _blended(self, *_: Any) -> Any:
            raise AssertionError("the processor blended")

    with opened() as engine:
        sink = Shown()
        run_pipeline(ScriptedSource(frames=5, live=False), Segmenter(engine), sink, Asked(tiny_spec().classes))
    assert len(sink.pictures) == 5
    for shown, wanted in sink.pictures:
        assert np.abs(shown.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("order", ["hf", "fh", "ffh"])
def test_a_slow_sink_holds_up_its_own_stream_alone_in_lanes_too(opened: Open, order: str) -> None:
    """A frame that was begun is a result to come, and its sink must have room for that, too."""
    count, held = 5 * RESULTS_WAITING, HeldSink()

    class Freeing(ListSink):
        def write(self, result: Any) -> None:
            super().write(result)
            if all(len(sink.results) == count for sink in free):
                held.may.set()

    free = [Freeing() for letter in order if letter == "f"]
    left = iter(free)
    streams = [Stream(ScriptedSource(count, live=False), held if letter == "h" else next(left)) for letter in order]
    with opened() as engine:
        facts = run_streams(streams, Segmenter(engine), Overlay(tiny_spec().classes))
    assert [each.frames for each in facts] == [count] * len(order)
    assert all(len(sink.results) == count for sink in (held, *free))


def test_what_was_begun_is_written_though_the_source_fails(opened: Open) -> None:
    sink, source = ListSink(), ScriptedSource(5, live=False, error=UserError("the camera", "burned", "buy one"))
    with opened() as engine, pytest.raises(UserError, match="the camera: burned"):
        run_streams([Stream(source, sink)], Segmenter(engine), Overlay(tiny_spec().classes))
    assert [result.frame.index for result in sink.results] == list(range(5))


def test_streams_of_several_sizes_keep_their_memory_and_their_graphs(opened: Open, tmp_path: Path, device: HostDevice) -> None:
    """Lanes and places in a batch see the sizes in turns."""
    with opened() as engine:
        segmenter, pairs = Segmenter(engine), list(zip(frames(), plain_masks(tmp_path), strict=True))
        segmenter.overlap(2)
        for turn in range(12):
            if turn == 8:
                made, before = len(device.made), HostGraph.launched
            for frame, wanted in pairs:
                np.testing.assert_array_equal(segmenter(frame), wanted)
        assert len(device.made) == made, "memory was asked for again"
        assert HostGraph.launched - before == 2 * 4 * len(pairs)  # the network and the mask of every frame


def test_a_lane_that_has_no_kernels_is_none(opened: Open, tmp_path: Path, device: HostDevice) -> None:
    """As where there is memory for a context and none for what frames need."""
    with opened() as engine:
        kernels, segmenter = device.kernels, Segmenter(engine)

        def refuse(_source: Any) -> Any:
            raise CheckFailed("CUDA call failed: cudaErrorMemoryAllocation")

        device.kernels = refuse  # type: ignore[method-assign]  # no memory is left
        assert segmenter.overlap(2) == 1
        device.kernels = kernels  # type: ignore[method-assign]  # as it was
        np.testing.assert_array_equal(segmenter(frames()[0]), plain_masks(tmp_path)[0])
    assert not any(made.is_open for made in device.made)


def test_a_network_that_fails_while_it_is_captured_says_so(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def execute(self: PlayedContext, stream: int) -> bool:
        there = HostStream.by_handle[stream]
        if there._captured is not None:
            return False
        there.queue(self._execute)
        return True

    monkeypatch.setattr(PlayedContext, "execute_async_v3", execute)
    with opened() as engine:
        for _ in range(4):
            np.testing.assert_array_equal(Segmenter(engine)(frames()[0]), plain_masks(tmp_path)[0])
    assert "kernel by kernel: TensorRT 0, a processor that plays a GPU failed to run" in capsys.readouterr().err
