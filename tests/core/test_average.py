"""The mask of a strategy equals that of plain NumPy in float64: everything at full size, softmax, mean, argmax."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from core.stand_ins import StandInEngine, spec_with
from hypothesis import given, settings
from hypothesis import strategies as st

from dlv3deploy.core import average
from dlv3deploy.core.average import ScoredView, mean_mask
from dlv3deploy.core.engine import Batch, Outputs
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.postprocess import mask_from_scores
from dlv3deploy.core.preprocess import geometry_of, preprocess
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import Architecture, Coordinates, ModelSpec, OutputSpec
from dlv3deploy.core.strategy import PAPER_SCALES, Strategy, scaled_side, window_starts

pytest.importorskip("cv2")

CLASSES, STRIDE = 4, 8
COLOURS = np.random.default_rng(5).standard_normal((CLASSES, 3)).astype(np.float32)

HALF_PIXEL = OutputSpec("scores", "half-pixel")


def network(batch: Batch) -> Outputs:
    """Scores at output stride 8 from colours and from where in the batch they lie: no view is like another."""
    features = np.tensordot(COLOURS, batch[0, :, ::STRIDE, ::STRIDE] / 32, axes=1)
    features += np.linspace(0, 0.3, CLASSES, dtype=np.float32)[:, None, None]  # no classes are equal where there is no picture
    height, width = features.shape[1:]
    features[0] += np.linspace(0, 1, width, dtype=np.float32)
    features[1] += np.linspace(1, -1, height, dtype=np.float32)[:, None]
    features[2] *= np.float32(1 + height * width / 50)
    return features[None]


def smooth_frame(height: int, width: int, seed: int = 0) -> np.ndarray:
    import cv2

    blobs = np.random.default_rng(seed).integers(0, 256, (max(2, height // 9), max(2, width // 9), 3), np.uint8)
    return np.asarray(cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC))


def spec(height: int, width: int, coordinates: Coordinates = "half-pixel", **settings: Any) -> ModelSpec:
    """Of a network whose output stride is known, and whose mean colour is none that the frames are made of."""
    made = spec_with(CLASSES, height, width, "scores", mean=(90.0, 120.0, 150.0), **settings)
    architecture = Architecture("resnet18", output_stride=STRIDE)
    return replace(made, output=OutputSpec("scores", coordinates), architecture=architecture)


def bilinear(scores: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Scores C×N in float64 at positions in score pixels, the border repeated."""
    y, x = np.clip(y, 0, scores.shape[1] - 1), np.clip(x, 0, scores.shape[2] - 1)
    found = np.zeros((scores.shape[0], y.size))
    for row in range(scores.shape[1]):
        for column in range(scores.shape[2]):
            weight = np.maximum(0, 1 - abs(y - row)) * np.maximum(0, 1 - abs(x - column))
            found += scores[:, row, column, None].astype(np.float64) * weight
    return found


def reference(
    frame: np.ndarray, model: ModelSpec, strategy: Strategy, fixed: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The mask, and by how much its class leads, H×W each. Everything in float64 and at once."""
    height, width = frame.shape[:2]
    y, x = (grid.ravel() + 0.5 for grid in np.mgrid[:height, :width])  # pixel centres
    pictures = []
    for scale in strategy.scales:
        size = [scaled_side(side, scale, STRIDE) for side in (model.input.height, model.input.width)]
        given = replace(model.input, height=size[0], width=size[1])
        batch, _ = preprocess(frame, given)
        ratio = size[0] / height, size[1] / width
        place_y, place_x = y * ratio[0], x * ratio[1]  # in the picture, its corner at 0
        if given.resize == "letterbox":
            inner = [max(1, round(side * min(ratio))) for side in (height, width)]
            place_y = y * inner[0] / height + (size[0] - inner[0]) // 2
            place_x = x * inner[1] / width + (size[1] - inner[1]) // 2
        for mirrored in (False, True)[: 1 + strategy.flip]:
            shown, across = (batch[..., ::-1], size[1] - place_x) if mirrored else (batch, place_x)
            window = fixed or (size[0], size[1])
            far = np.pad(shown, ((0, 0), (0, 0), (window[0],) * 2, (window[1],) * 2))
            total, count = np.zeros((CLASSES, y.size)), np.zeros(y.size)
            for top in window_starts(size[0], window[0]):
                for left in window_starts(size[1], window[1]):
                    part = far[..., top + window[0] : top + 2 * window[0], left + window[1] : left + 2 * window[1]]
                    scores = network(np.ascontiguousarray(part))[0]
                    inside_y, inside_x = place_y - top, across - left
                    at = []
                    for position, side, cells in zip((inside_y, inside_x), window, scores.shape[1:], strict=True):
                        if model.output.coordinates == "align-corners":
                            at.append((position - 0.5) * (cells - 1) / (side - 1))
                        else:
                            at.append(position * cells / side - 0.5)
                    logits = bilinear(scores, at[0], at[1])
                    powers = np.exp(logits - logits.max(0))
                    covers = (inside_y > -1e-9) & (inside_y < window[0] + 1e-9)
                    covers &= (inside_x > -1e-9) & (inside_x < window[1] + 1e-9)
                    total += covers * powers / powers.sum(0)
                    count += covers
            assert count.min() >= 1, "every pixel is covered"
            pictures.append(total / count)
    mean = np.mean(pictures, axis=0)
    lead = np.diff(np.sort(mean, axis=0)[-2:], axis=0)
    return mean.argmax(0).reshape(height, width), lead.reshape(height, width)


def assert_is_the_references(mask: np.ndarray, expected: tuple[np.ndarray, np.ndarray]) -> None:
    """In every pixel whose class leads by more than float32 may lose."""
    truth, lead = expected
    clear = lead > 1e-5
    assert clear.mean() > 0.99
    assert len(np.unique(truth)) > 1, "a frame of one class proves little"
    assert mask.dtype == np.uint8
    assert np.array_equal(mask[clear], truth[clear])


STRATEGIES = [
    Strategy(flip=True),
    Strategy((0.5,)),
    Strategy((1.5,), flip=True),
    Strategy((0.5, 1.0, 1.25)),
    Strategy(PAPER_SCALES, flip=True),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("coordinates", ["half-pixel", "align-corners"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("fixed", [False, True])
def test_the_mask_is_the_references(strategy: Strategy, coordinates: Any, resize: Any, fixed: bool) -> None:
    frame, model = smooth_frame(50, 66), spec(41, 57, coordinates, resize=resize)
    engine = StandInEngine(model, network, (41, 57) if fixed else (None, None))
    mask = Segmenter(engine, strategy=strategy)(frame)
    assert_is_the_references(mask, reference(frame, model, strategy, (41, 57) if fixed else None))


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1)),
    st.lists(st.sampled_from([0.1, 0.3, 0.5, 1.0, 1.1, 1.7, 2.2, 4.0]), min_size=1, max_size=2, unique=True),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["stretch", "letterbox"]),
)
@settings(deadline=None, max_examples=60)
def test_whatever_the_sizes_the_mask_is_the_references(
    shape: tuple[int, int], steps: tuple[int, int, int], scales: list[float], flip: bool, fixed: bool, resize: Any
) -> None:
    height, width = steps[0] * STRIDE + steps[2], steps[1] * STRIDE + steps[2]
    frame, model, strategy = smooth_frame(*shape), spec(height, width, resize=resize), Strategy(tuple(scales), flip)
    engine = StandInEngine(model, network, (height, width) if fixed else (None, None))
    truth, lead = reference(frame, model, strategy, (height, width) if fixed else None)
    mask = Segmenter(engine, strategy=strategy)(frame)
    assert np.array_equal(mask[lead > 1e-4], truth[lead > 1e-4])


def test_windows_are_cut_along_one_axis_where_the_other_is_dynamic() -> None:
    seen: list[tuple[int, ...]] = []

    def answer(batch: Batch) -> Outputs:
        seen.append(batch.shape[2:])
        return network(batch)

    Segmenter(StandInEngine(spec(40, 48), answer, (40, None)), strategy=Strategy((0.5, 1.5)))(smooth_frame(60, 80))
    assert seen == [(40, 24), (40, 72), (40, 72)]


def test_a_mask_of_another_size_shows_the_same_view() -> None:
    frame, model, strategy = smooth_frame(48, 64), spec(48, 64), Strategy((1.0, 1.5), flip=True)
    segment = Segmenter(StandInEngine(model, network, (48, 64)), strategy=strategy)
    import cv2

    mask = segment(frame, (24, 32))
    assert mask.shape == (24, 32)
    nearest = cv2.resize(segment(frame), (32, 24), interpolation=cv2.INTER_NEAREST_EXACT)
    assert (mask == nearest).mean() > 0.95


@pytest.mark.parametrize("fixed", [True, False])
def test_the_default_strategy_is_the_plain_mask(fixed: bool) -> None:
    frame, model = smooth_frame(50, 70), spec(48, 64)
    engine = StandInEngine(model, network, (48, 64) if fixed else (None, None))
    batch, geometry = preprocess(frame, model.input)
    expected = mask_from_scores(network(batch)[0], geometry, HALF_PIXEL)
    assert np.array_equal(Segmenter(engine)(frame), expected)
    assert np.array_equal(Segmenter(engine, strategy=Strategy((1,)))(frame), expected)


def random_views(count: int, frame: tuple[int, int], classes: int, scores: tuple[int, int]) -> list[ScoredView]:
    random = np.random.default_rng(0)
    geometry = geometry_of(*frame, spec(scores[0] * 8, scores[1] * 8).input)
    return [
        ScoredView(random.standard_normal((classes, *scores)).astype(np.float32), geometry, picture) for picture in range(count)
    ]


def test_the_same_view_several_times_is_the_mask_of_one() -> None:
    (view,) = random_views(1, (90, 70), 5, (9, 8))
    plain = mask_from_scores(view.scores, view.geometry, HALF_PIXEL)
    averaged = mean_mask([replace(view, picture=i) for i in range(3)], HALF_PIXEL)
    assert (averaged == plain).mean() > 0.999
    assert np.array_equal(mean_mask([view], HALF_PIXEL), averaged)


def test_probabilities_are_averaged_and_not_scores() -> None:
    """Three pictures: one is sure of class 0, two lean to class 1; the mean of the scores would follow the one."""
    (view,) = random_views(1, (8, 8), 2, (1, 1))
    sure, leaning = np.array([[[20.0]], [[0.0]]], np.float32), np.array([[[0.0]], [[3.0]]], np.float32)
    views = [replace(view, scores=scores, picture=i) for i, scores in enumerate((sure, leaning, leaning))]
    assert (mean_mask(views, HALF_PIXEL) == 1).all()


def test_a_picture_counts_once_however_many_windows_it_has() -> None:
    (view,) = random_views(1, (8, 8), 2, (1, 1))
    first, second = np.array([[[2.0]], [[0.0]]], np.float32), np.array([[[0.0]], [[1.0]]], np.float32)
    views = [replace(view, scores=first, picture=0), *[replace(view, scores=second, picture=1)] * 3]
    assert (mean_mask(views, HALF_PIXEL) == 0).all()


def test_equal_classes_go_to_the_lowest_id() -> None:
    views = [replace(view, scores=np.zeros((5, 3, 3), np.float32)) for view in random_views(3, (20, 20), 5, (3, 3))]
    assert (mean_mask(views, HALF_PIXEL) == 0).all()


def test_scores_as_far_apart_as_float32_reaches_are_settled() -> None:
    (view,) = random_views(1, (20, 20), 3, (2, 2))
    scores = np.zeros((3, 2, 2), np.float32)
    scores[0], scores[1] = -3e38, 3e38
    assert (mean_mask([replace(view, scores=scores, picture=i) for i in range(2)], HALF_PIXEL) == 1).all()


@pytest.mark.parametrize("values", [1, 300, 5000])
def test_the_height_of_a_band_changes_nothing(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, model = smooth_frame(61, 43), spec(32, 24)
    segment = Segmenter(StandInEngine(model, network, (32, 24)), strategy=Strategy((0.5, 1.0, 2.5), flip=True))
    whole = segment(frame)
    monkeypatch.setattr(average, "VALUES_AT_ONCE", values)
    assert np.array_equal(segment(frame), whole)


def test_memory_does_not_grow_with_the_frame() -> None:
    views = random_views(4, (1080, 1920), 19, (32, 64))
    full_size_bytes = 19 * 1080 * 1920 * 4
    tracemalloc.start()
    try:
        mean_mask(views, HALF_PIXEL)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < full_size_bytes / 10


def symmetric(batch: Batch) -> Outputs:
    """Each pixel's colours alone, at the input's size: the same network in a mirror."""
    return np.tensordot(COLOURS, batch[0] / 64 - 1, axes=1)[None]


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.75])
def test_a_mirror_changes_nothing_for_a_network_that_knows_no_sides(scale: float, resize: Any) -> None:
    frame, model = smooth_frame(48, 64), replace(spec(48, 64, resize=resize), architecture=None)
    for size in ((None, None), (48, 64)):
        engine = StandInEngine(model, symmetric, size)
        plain = Segmenter(engine, strategy=Strategy((scale,)))(frame)
        assert (Segmenter(engine, strategy=Strategy((scale,), flip=True))(frame) == plain).mean() > 0.999


def test_the_mirror_image_of_a_frame_has_the_mirror_image_of_its_mask() -> None:
    frame = smooth_frame(48, 64)
    for size in ((None, None), (48, 64)):
        segment = Segmenter(StandInEngine(spec(48, 64), network, size), strategy=Strategy((1.0,), flip=True))
        assert (segment(np.ascontiguousarray(frame[:, ::-1])) == segment(frame)[:, ::-1]).mean() > 0.999
        alone = Segmenter(segment.engine)
        assert (alone(np.ascontiguousarray(frame[:, ::-1])) == alone(frame)[:, ::-1]).mean() < 0.98, "or it proves nothing"


@pytest.mark.parametrize("size", [(None, None), (48, 64)])
def test_scores_that_are_the_same_everywhere_give_their_class_everywhere(size: Any) -> None:
    def constant(batch: Batch) -> Outputs:
        return np.tile(np.array([0, 1, 3, 2], np.float32)[None, :, None, None], (1, 1, 6, 8))

    mask = Segmenter(StandInEngine(spec(48, 64), constant, size), strategy=Strategy(PAPER_SCALES, flip=True))(
        smooth_frame(71, 33)
    )
    assert (mask == 2).all()


def test_what_a_small_picture_leaves_free_is_the_mean_colour() -> None:
    batches: list[Batch] = []

    def answer(batch: Batch) -> Outputs:
        batches.append(batch)
        return network(batch)

    Segmenter(StandInEngine(spec(48, 64), answer, (48, 64)), strategy=Strategy((0.5,)))(np.full((48, 64, 3), 255, np.uint8))
    (batch,) = batches
    assert (batch[:, :, 12:36, 16:48] != 0).all()
    batch[:, :, 12:36, 16:48] = 0
    assert (batch == 0).all()


def test_class_ids_cannot_be_averaged() -> None:
    model = spec_with(2, 64, 96, "mask")
    for strategy in (Strategy(flip=True), Strategy((0.5,))):
        with pytest.raises(UserError, match=r"stand-in with scale.*: the model returns class ids.*--output scores"):
            Segmenter(StandInEngine(model, network, (64, 96)), strategy=strategy)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_one_view_with_scores_that_are_not_finite_fails_the_check(broken: float) -> None:
    answers = 0

    def answer(batch: Batch) -> Outputs:
        nonlocal answers
        answers += 1
        outputs = network(batch)
        outputs[0, 1, -1, -1] = broken if answers == 3 else 0
        return outputs

    with pytest.raises(CheckFailed, match="not finite"):
        Segmenter(StandInEngine(spec(48, 64), answer, (48, 64)), strategy=Strategy((0.5, 1.0), flip=True))(smooth_frame(48, 64))
    assert answers == 4


def test_scores_of_another_number_of_classes_fail_the_check() -> None:
    engine = StandInEngine(spec(48, 64), lambda batch: network(batch)[:, :3], (48, 64))
    with pytest.raises(CheckFailed, match="scores of 3 classes, the model has 4"):
        Segmenter(engine, strategy=Strategy(flip=True))(smooth_frame(48, 64))
