"""Frame in, mask out: with a stand-in engine that sees colours, for every kind of output."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from core.stand_ins import StandInEngine, spec_with

from dlv3deploy.core.engine import Batch, Outputs, check_batch
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import Architecture, ModelSpec

pytest.importorskip("cv2")

DARK, BRIGHT = 0, 1


def scene(height: int = 64, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A frame that is bright in the right third of its lower half, and its true mask."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 :, width - width // 3 :] = BRIGHT
    return np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2), mask


def brightness(batch: Batch) -> Outputs:
    """Logits of dark and bright, at the input's size."""
    grey = batch.mean(axis=1)
    return np.stack([127 - grey, grey - 127], axis=1).astype(np.float32)


ANSWERS: dict[str, Any] = {
    "logits": brightness,
    "scores": lambda batch: brightness(batch)[:, :, 2::4, 2::4],  # output stride 4
    "mask": lambda batch: brightness(batch).argmax(axis=1),
    "mask N×1×H×W": lambda batch: brightness(batch).argmax(axis=1)[:, None].astype(np.int32),
    "float mask": lambda batch: brightness(batch).argmax(axis=1).astype(np.float32),
    "small mask": lambda batch: brightness(batch).argmax(axis=1)[:, 2::4, 2::4],
}


def segmenter(way: str, size: tuple[int | None, int | None] = (64, 96), **settings: Any) -> Segmenter:
    kind: Any = "mask" if "mask" in way else way
    return Segmenter(StandInEngine(spec_with(2, 64, 96, kind, **settings), ANSWERS[way], size))


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("way", ANSWERS)
@pytest.mark.parametrize("size", [(64, 96), (128, 96), (50, 200), (16, 16)])
def test_the_mask_lies_where_the_frame_shows_it(way: str, size: tuple[int, int], resize: str) -> None:
    frame, truth = scene(*size)
    mask = segmenter(way, resize=resize)(frame)
    assert mask.dtype == np.uint8
    assert mask.shape == truth.shape
    # Off by no more than one feature at the edges of the bright part, and right everywhere else.
    scale = min(64 / size[0], 96 / size[1]) if resize == "letterbox" else None
    reach = [max(2, round(4 / (scale or full / side))) for side, full in zip(size, (64, 96), strict=True)]
    edge = np.zeros(size, bool)
    top, left = size[0] // 2, size[1] - size[1] // 3
    edge[max(0, top - reach[0]) : top + reach[0], max(0, left - reach[1]) :] = True
    edge[max(0, top - reach[0]) :, max(0, left - reach[1]) : left + reach[1]] = True
    assert not edge.all()
    assert np.array_equal(mask[~edge], truth[~edge])


@pytest.mark.parametrize("way", ["logits", "mask", "mask N×1×H×W", "float mask"])
def test_at_the_inputs_own_size_every_pixel_is_right(way: str) -> None:
    frame, truth = scene(64, 96)
    assert np.array_equal(segmenter(way)(frame), truth)


@pytest.mark.parametrize("way", ["logits", "mask"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_mask_of_another_size_shows_the_same_view(way: str, resize: str) -> None:
    frame, _ = scene(64, 96)
    mask = segmenter(way, resize=resize)(frame, (32, 48))
    assert np.array_equal(mask, scene(32, 48)[1])


def test_an_engine_of_open_size_takes_the_specs_or_the_one_asked_for() -> None:
    seen: list[tuple[int, ...]] = []

    def answer(batch: Batch) -> Outputs:
        seen.append(batch.shape)
        return brightness(batch)

    engine = StandInEngine(spec_with(2, 64, 96, "logits"), answer, (None, None), images=None)
    frame, truth = scene(30, 40)
    for size in (None, (30, 40), (90, 33)):
        mask = Segmenter(engine, size)(frame)
        assert mask.shape == truth.shape
    assert seen == [(1, 3, 64, 96), (1, 3, 30, 40), (1, 3, 90, 33)]


def test_an_engine_of_fixed_size_refuses_another_one() -> None:
    engine = StandInEngine(spec_with(2, 64, 96, "logits"), brightness, (64, 96))
    assert Segmenter(engine, (64, 96)).input.height == 64
    with pytest.raises(UserError, match=r"size 65×97: .* fixed at 64×96"):
        Segmenter(engine, (65, 97))


def test_a_size_that_does_not_suit_the_network_is_refused() -> None:
    spec = replace(spec_with(2, 64, 96), architecture=Architecture("resnet50", output_stride=16))
    engine = StandInEngine(spec, brightness, (None, None))
    Segmenter(engine, (65, 97))
    with pytest.raises(UserError, match="width 100"):
        Segmenter(engine, (64, 100))


def test_an_engine_that_takes_several_images_at_once_is_refused() -> None:
    with pytest.raises(UserError, match="takes 4 images at once"):
        Segmenter(StandInEngine(spec_with(2, 64, 96), brightness, (64, 96), images=4))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["scores", "logits"])
def test_scores_that_are_not_finite_fail_the_check(kind: Any, broken: float) -> None:
    def answer(batch: Batch) -> Outputs:
        outputs = brightness(batch)
        outputs[0, 1, 63, 95] = broken
        return outputs

    with pytest.raises(CheckFailed, match="stand-in returned scores that are not finite"):
        Segmenter(StandInEngine(spec_with(2, 64, 96, kind), answer, (64, 96)))(scene()[0])


@pytest.mark.parametrize("identity", [2, 255, 256, -1, np.nan])
def test_a_mask_with_ids_that_are_no_class_fails_the_check(identity: float) -> None:
    def answer(batch: Batch) -> Outputs:
        ids = brightness(batch).argmax(axis=1).astype(np.float64)
        ids[0, 0, 0] = identity
        return ids if np.isnan(identity) else ids.astype(np.int64)  # 256 and -1 would become 0 and 255 as 8 bits

    with pytest.raises(CheckFailed, match="the model has 2 classes"):
        Segmenter(StandInEngine(spec_with(2, 64, 96, "mask"), answer, (64, 96)))(scene()[0])


def test_scores_of_another_number_of_classes_fail_the_check() -> None:
    with pytest.raises(CheckFailed, match="scores of 2 classes, the model has 3"):
        Segmenter(StandInEngine(spec_with(3, 64, 96, "logits"), brightness, (64, 96)))(scene()[0])


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 3, 64, 97), np.float32),
        np.zeros((2, 3, 64, 96), np.float32),
        np.zeros((1, 3, 64, 96)),
        np.zeros((3, 64, 96), np.float32),
    ],
)
def test_a_batch_that_does_not_fit_is_a_programming_error(batch: Any) -> None:
    engine = StandInEngine(spec_with(2, 64, 96), brightness, (64, 96))
    with pytest.raises(ValueError, match="stand-in takes float32"):
        check_batch(engine, batch)


def test_leaving_the_context_closes_the_engine() -> None:
    class Closing(StandInEngine):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    spec: ModelSpec = spec_with(2, 64, 96)
    engine = Closing(spec, brightness, (64, 96))
    with suppress(KeyboardInterrupt), engine as entered:
        assert entered is engine
        assert engine.closed == 0
        raise KeyboardInterrupt
    assert engine.closed == 1
