"""The kernels against NumPy, OpenCV and the CPU's own pre- and postprocessing: compiled for this processor, and on a GPU where
there is one; and compiled by NVRTC for all that they are for."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core.stand_ins import raw_input
from core.test_postprocess import adversarial_scores
from host_cuda import HostDevice, HostStream, kernels_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dlv3deploy.core.classes import VOC
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.postprocess import mask_from_scores
from dlv3deploy.core.preprocess import Geometry, geometry_of, preprocess
from dlv3deploy.core.spec import InputSpec, OutputSpec
from dlv3deploy.engines.cuda.by_cuda_python import CudaPythonDevice
from dlv3deploy.engines.cuda.by_pycuda import PyCudaDevice
from dlv3deploy.engines.cuda.device import Device, Stream
from dlv3deploy.engines.cuda.frame_preparation import FramePreparation
from dlv3deploy.engines.cuda.mask_maker import MaskMaker, Painting
from dlv3deploy.engines.cuda.nvrtc import compiled
from dlv3deploy.engines.cuda.port import Port
from dlv3deploy.engines.cuda.source import FRAMES, MASKS, Source
from dlv3deploy.video.overlay import Overlay

cv2 = pytest.importorskip("cv2")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler for the host's build")
SIDES = st.integers(1, 40)
OUTPUTS = st.builds(OutputSpec, st.just("scores"), st.sampled_from(["half-pixel", "align-corners"]), shift=st.just(0.0))


@dataclass(frozen=True)
class Rig:
    """A device whose kernels are compiled once, and a stream of it."""

    device: Device
    stream: Stream


@pytest.fixture(
    scope="module",
    params=["host", pytest.param("cuda-python", marks=pytest.mark.gpu), pytest.param("pycuda", marks=pytest.mark.gpu)],
)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    if request.param == "host":
        if shutil.which("g++") is None:
            pytest.skip("no C++ compiler for the host's build")
        device: Any = HostDevice(tmp_path_factory.mktemp("kernels"))
    elif request.param == "cuda-python":
        pytest.importorskip("cuda.bindings")
        device = CudaPythonDevice()
    else:
        pytest.importorskip("pycuda.driver")
        device = PyCudaDevice()
    known = {source.name: device.kernels(source) for source in (FRAMES, MASKS)}
    device.kernels = lambda source: known[source.name]
    return Rig(device, device.stream())


def prepared(
    rig: Rig, frame: np.ndarray, given: InputSpec, dtype: Any = np.float32, pixels: str = "bgr", step: float = 1.0
) -> tuple[np.ndarray, Geometry]:
    """The input 3×H×W that the kernel makes, as the second of two images; the first one stays as it was."""
    made = rig.device.exchange((2, 3, given.height, given.width), np.dtype(dtype))
    made.values.view(np.uint8)[:] = 0xA5
    made.send(rig.stream)
    preparation = FramePreparation(rig.device, Port(made, step))
    geometry = preparation.put(1, frame, given, rig.stream, pixels)
    made.fetch(rig.stream)
    rig.stream.synchronize()
    values = np.array(made.values)
    preparation.close()
    made.close()
    assert (values[0].view(np.uint8) == 0xA5).all()
    return values[1], geometry


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_a_captured_frame_is_prepared_again_whatever_is_in_it(rig: Rig) -> None:
    given, pixels = InputSpec(24, 40), [noise(31, 57, 3, seed=seed) for seed in range(3)]
    made = rig.device.exchange((1, 3, 24, 40), np.dtype(np.float32))
    preparation = FramePreparation(rig.device, Port(made))

    def work() -> None:
        preparation.queue(0, given, rig.stream)
        made.fetch(rig.stream)

    preparation.load(0, pixels[0])
    graph = rig.stream.capture(work)
    if graph is None:
        pytest.skip("PyCUDA has no graphs")
    for frame in pixels:
        preparation.load(0, frame)
        graph.launch(rig.stream)
        rig.stream.synchronize()
        np.testing.assert_array_equal(made.values, preprocess(frame, given)[0])
    for each in (graph, preparation, made):
        each.close()


@settings(deadline=None, max_examples=150)
@given(
    frame=st.tuples(SIDES, SIDES),
    size=st.tuples(SIDES, SIDES),
    resize=st.sampled_from(["stretch", "letterbox"]),
    order=st.sampled_from(["rgb", "bgr"]),
)
def test_a_prepared_frame_is_the_cpus_to_the_bit(rig: Rig, frame: Any, size: Any, resize: Any, order: Any) -> None:
    given = InputSpec(*size, resize=resize, colour_order=order)
    pixels = noise(*frame, 3)
    wanted, geometry = preprocess(pixels, given)
    found, place = prepared(rig, pixels, given)
    assert place == geometry
    np.testing.assert_array_equal(found, wanted[0])


@pytest.mark.parametrize(("frame", "size"), [((720, 1280), (353, 481)), ((480, 640), (240, 320)), ((97, 31), (513, 513))])
def test_so_is_one_of_a_camera(rig: Rig, frame: tuple[int, int], size: tuple[int, int]) -> None:
    """Also at half the size, where OpenCV takes means of four."""
    given, pixels = InputSpec(*size), noise(*frame, 3)
    np.testing.assert_array_equal(prepared(rig, pixels, given)[0], preprocess(pixels, given)[0][0])


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_frames_may_be_rgb(rig: Rig, order: Any) -> None:
    given, frame = InputSpec(31, 47, colour_order=order), noise(31, 57, 3)
    np.testing.assert_array_equal(prepared(rig, frame[:, :, ::-1], given, pixels="rgb")[0], preprocess(frame, given)[0][0])


@pytest.mark.parametrize(("pixels", "code"), [("nv12", cv2.COLOR_YUV2BGR_NV12), ("yuyv", cv2.COLOR_YUV2BGR_YUY2)])
@pytest.mark.parametrize("size", [(2, 2), (30, 46)])
def test_luma_and_chroma_become_opencvs_colours(rig: Rig, pixels: str, code: int, size: tuple[int, int]) -> None:
    height, width = size
    frame = noise(height * 3 // 2, width) if pixels == "nv12" else noise(height, width, 2)
    colours = cv2.cvtColor(frame, code)
    assert colours.shape == (height, width, 3)
    given = raw_input(height, width, colour_order="bgr")
    found, geometry = prepared(rig, frame, given, pixels=pixels)
    assert geometry.frame == (height, width)
    np.testing.assert_array_equal(found, colours.transpose(2, 0, 1))
    larger = replace(given, height=61, width=83)
    np.testing.assert_array_equal(prepared(rig, frame, larger, pixels=pixels)[0], preprocess(colours, larger)[0][0])


def test_all_luma_and_chroma_become_opencvs_colours(rig: Rig) -> None:
    """Every chroma with 64 lumas, the extremes among them."""
    luma = np.linspace(0, 255, 64).round().astype(np.uint8)
    chroma = np.arange(256, dtype=np.uint8)
    frame = np.empty((256, 256 * 64, 2), np.uint8)  # rows: cb; columns: cr by luma
    frame[:, 0::2, 1], frame[:, 1::2, 1] = chroma[:, None], np.repeat(chroma, 32)[None]
    frame[:, :, 0] = np.tile(luma, 256)[None]
    given = raw_input(*frame.shape[:2], colour_order="bgr")
    wanted = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_YUY2).transpose(2, 0, 1)
    np.testing.assert_array_equal(prepared(rig, frame, given, pixels="yuyv")[0], wanted)


def test_half_precision_inputs_are_the_single_ones_rounded(rig: Rig) -> None:
    given, frame = InputSpec(33, 49), noise(50, 70, 3)
    single, half = (prepared(rig, frame, given, dtype)[0] for dtype in (np.float32, np.float16))
    np.testing.assert_array_equal(half, single.astype(np.float16))


def test_int8_inputs_are_the_single_ones_in_steps(rig: Rig) -> None:
    given, frame = InputSpec(33, 49), noise(50, 70, 3)
    step = 2.2 / 127  # so that some saturate
    single, found = prepared(rig, frame, given)[0], prepared(rig, frame, given, np.int8, step=step)[0]
    wanted = np.clip(np.rint(single / np.float32(step)), -128, 127)
    assert (np.abs(wanted) >= 127).any()
    np.testing.assert_array_equal(found, wanted)


def masks(
    rig: Rig, scores: np.ndarray, places: list[Geometry], output: OutputSpec, dtype: Any = np.float32
) -> list[np.ndarray]:
    """Masks by the kernels, from the second of two images' scores; the first one's are no numbers at all."""
    both = np.stack([np.full_like(scores, np.nan), scores]).astype(dtype)
    made = rig.device.exchange(both.shape, both.dtype)
    np.copyto(made.values, both)
    made.send(rig.stream)
    maker = MaskMaker(rig.device, Port(made), output, "the test's engine")
    try:
        return [maker.take(1, place, rig.stream) for place in places]
    finally:
        maker.close()
        made.close()


@settings(deadline=None, max_examples=300)
@given(scores=adversarial_scores(), frame=st.tuples(SIDES, SIDES), output=OUTPUTS)
def test_masks_are_the_cpus_in_every_pixel(rig: Rig, scores: Any, frame: tuple[int, int], output: Any) -> None:
    place = geometry_of(*frame, raw_input(scores.shape[1] * 8, scores.shape[2] * 8))
    (found,) = masks(rig, scores, [place], output)
    np.testing.assert_array_equal(found, mask_from_scores(scores, place, output))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_masks_of_a_smooth_map_are_the_cpus_in_every_pixel(rig: Rig, dtype: Any) -> None:
    random, output = np.random.default_rng(3), OutputSpec("scores")
    scores = np.stack([cv2.resize(random.standard_normal((5, 8)), (64, 33)) for _ in range(19)]).astype(dtype)
    given = InputSpec(257, 513, resize="letterbox")
    places = [geometry_of(*frame, given) for frame in [(480, 640), (97, 31), (480, 640)]]
    for place, found in zip(places, masks(rig, scores, places, output, dtype), strict=True):
        assert found.shape == place.frame
        assert len(np.unique(found)) > 5
        np.testing.assert_array_equal(found, mask_from_scores(scores, place, output))


@pytest.mark.parametrize("opacity", [0.0, 0.3, 0.5, 1.0])
def test_colours_over_the_frame_are_the_overlays(rig: Rig, opacity: float) -> None:
    """All classes of VOC, of which the background is black and leaves the frame as it is; a step of 255 apart at most."""
    classes, output, given = VOC, OutputSpec("scores"), raw_input(64, 128)
    scores = np.random.default_rng(1).standard_normal((len(classes), 8, 16)).astype(np.float32)
    scores[0, :3] = 9  # sky that is background
    frame, place = noise(61, 97, 3), geometry_of(61, 97, given)
    made = rig.device.exchange((1, *scores.shape), np.dtype(np.float32))
    shown = rig.device.exchange(frame.shape, np.dtype(np.uint8))
    for exchange, values in ((made, scores[None]), (shown, frame)):
        np.copyto(exchange.values, values)
        exchange.send(rig.stream)
    overlay, maker = Overlay(classes, opacity), MaskMaker(rig.device, Port(made), output, "the test's engine")
    maker.ready(place, rig.stream, overlay.paint)
    maker.queue(0, place, rig.stream, Painting(overlay.paint, shown))
    mask, picture = maker.collect(place, rig.stream), maker.picture(place)
    np.testing.assert_array_equal(mask, mask_from_scores(scores, place, output))
    wanted = overlay._blended(frame, mask, np.bincount(mask.ravel(), minlength=256))
    assert np.abs(picture.astype(int) - wanted).max() <= 1 and (mask == 0).any() and (mask > 0).any()
    np.testing.assert_array_equal(picture[mask == 0], frame[mask == 0])
    for each in (maker, made, shown):
        each.close()


@needs_compiler
def test_a_pixel_between_alike_corners_is_settled_by_them(tmp_path: Path) -> None:
    """Which is what `rank` is for: where the rest of `label` marks what it is asked, that is the seam of two halves."""
    output, place = OutputSpec("scores"), geometry_of(64, 64, raw_input(64, 64))
    scores = np.zeros((2, 8, 8), np.float32)
    scores[0, :, :4], scores[1, :, 4:] = 1, 1
    (mask,) = masks(Rig(HostDevice(tmp_path), HostStream()), scores, [place], output)
    asked = MASKS.text.replace("    float down = ", "    mask[at] = 99;\n    return;\n    float down = ")
    assert asked != MASKS.text
    marking = HostDevice(tmp_path)
    marking.kernels = lambda _: kernels_of(asked, MASKS.kernels, tmp_path)  # type: ignore[method-assign]  # others than the source's
    (found,) = masks(Rig(marking, HostStream()), scores, [place], output)
    seam = slice(28, 36)
    assert (found[:, seam] == 99).all()
    found[:, seam] = mask[:, seam]
    np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_told(rig: Rig, value: float) -> None:
    scores = np.zeros((3, 5, 6), np.float32)
    place = geometry_of(20, 20, raw_input(40, 48))
    masks(rig, scores, [place], OutputSpec("scores"))
    scores[2, 4, 5] = value
    with pytest.raises(CheckFailed, match=r"the test's engine returned scores that are not finite"):
        masks(rig, scores, [place], OutputSpec("scores"))


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Floats of halves' bits, and bits of floats, by the functions that the kernels use."""
    names = {"to_float": ("unsigned short", "float", "float_of"), "to_half": ("float", "unsigned short", "half_of")}
    kernels = [
        f'extern "C" __global__ void {name}(const {given}* values, {wanted}* found)\n'
        f"{{ found[blockIdx.x] = {by}(values[blockIdx.x]); }}"
        for name, (given, wanted, by) in names.items()
    ]
    text = "\n".join([Source(("half.cu",), ()).text, *kernels])
    return kernels_of(text, list(names), tmp_path_factory.mktemp("conversions"))


def converted(conversions: Any, kernel: str, values: np.ndarray, dtype: Any) -> np.ndarray:
    found = np.empty(values.size, dtype)
    arguments = [np.uint64(array.ctypes.data) for array in (values, found)]
    stream = HostStream()
    conversions[kernel]((values.size, 1, 1), (1, 1, 1), arguments, stream)
    stream.synchronize()
    return found


@needs_compiler
def test_every_half_becomes_its_float_and_half_again(conversions: Any) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    halves = bits.view(np.float16)
    floats = converted(conversions, "to_float", bits, np.float32)
    np.testing.assert_array_equal(floats, halves.astype(np.float32))
    back = converted(conversions, "to_half", floats, np.uint16)
    is_number = ~np.isnan(halves)
    np.testing.assert_array_equal(back[is_number], bits[is_number])
    assert np.isnan(back[~is_number].view(np.float16)).all()


@needs_compiler
def test_floats_become_the_nearest_half_and_ties_the_even_one(conversions: Any) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = np.sort(halves[np.isfinite(halves)]).astype(np.float32)
    between = (halves[:-1] + halves[1:]) / 2  # exact in single precision
    random = np.random.default_rng(0).integers(0, 1 << 32, 1 << 18, np.uint32).view(np.float32)
    edges = np.float32([0.0, -0.0, 65504, 65519.996, 65520, 65536, 1e38, np.inf, -np.inf, 2.0**-149, 2.0**-25, 2.0**-24])
    some = [between, np.nextafter(between, np.float32(np.inf)), np.nextafter(between, np.float32(-np.inf)), random, edges]
    values = np.concatenate(some).astype(np.float32)
    values = values[~np.isnan(values)]
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float16)
    np.testing.assert_array_equal(converted(conversions, "to_half", values, np.uint16), wanted.view(np.uint16))


@pytest.mark.parametrize("capability", ["7.5", "8.7", "8.9", "9.0", "12.0"])
@pytest.mark.parametrize("source", [FRAMES, MASKS], ids=lambda source: source.name)
def test_nvrtc_compiles_them_for_every_gpu_that_they_are_for(source: Source, capability: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    code = _compiled(source, capability)
    assert code.startswith(b"\x7fELF")
    for name in source.kernels:
        assert name.encode() in code


def test_what_nvrtc_refuses_is_told_with_its_reason() -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    _compiled(FRAMES, "8.7")
    with pytest.raises(CheckFailed, match=r"frames\.cu was not compiled for 1\.1: .*arch"):
        _compiled(FRAMES, "1.1")
    with pytest.raises(CheckFailed, match=r"(?s)frames\.cu was not compiled for 8\.7: .*half_of"):
        _compiled(Source(("frames.cu",), ("prepare",)), "8.7")


def _compiled(source: Source, capability: str) -> bytes:
    try:
        return compiled(source, capability)
    except UserError as error:
        pytest.skip(str(error))
