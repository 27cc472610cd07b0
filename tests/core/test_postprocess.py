"""The mask equals that of the plain method (upsample everything, then argmax) in every pixel, whatever the scores are."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from core.stand_ins import raw_input
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dlv3deploy.core import upsample_argmax as module
from dlv3deploy.core.bilinear import Axis, Scores, axis_for
from dlv3deploy.core.postprocess import mask_from_ids, mask_from_scores
from dlv3deploy.core.preprocess import Geometry, geometry_of
from dlv3deploy.core.spec import OutputSpec
from dlv3deploy.core.upsample_argmax import upsample_argmax

ULP = 2.0**-23
DENORMAL = 2.0**-149
FAMILIES: dict[str, Any] = {
    "ties": st.sampled_from([-1.0, 0.0, 1.0]),
    "near-ties": st.integers(-3, 3).map(lambda k: 1 + k * ULP),
    "near-ties below a power of two": st.integers(1, 5).map(lambda k: 1 - k * ULP / 2),
    "near-ties beside clear leads": st.sampled_from([1.0, 1 + ULP, 1 + 2 * ULP, 1 + 90 * ULP, 1 + 99 * ULP]),
    "denormals": st.integers(-3, 3).map(lambda k: k * DENORMAL),
    "around the smallest normal number": st.integers(-3, 3).map(lambda k: 2.0**-126 + k * DENORMAL),
    "huge beside small": st.sampled_from([1e30, -1e30, 1.0, 1 + ULP, 0.0, -0.0, 1e-30]),
    "about to overflow": st.sampled_from([float(np.finfo(np.float32).max), -float(np.finfo(np.float32).max), 3e38, 0.0]),
    "anything finite": st.floats(width=32, allow_nan=False, allow_infinity=False),
}


@st.composite
def adversarial_scores(draw: st.DrawFn) -> Scores:
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)))
    scores: Scores = draw(arrays(np.float32, shape, elements=FAMILIES[draw(st.sampled_from(sorted(FAMILIES)))]))
    return scores


def stretched(frame: tuple[int, int], given_size: tuple[int, int]) -> Geometry:
    return geometry_of(*frame, raw_input(*given_size))


def axes(scores: Scores, frame: tuple[int, int], coordinates: Any = "half-pixel") -> tuple[Axis, Axis]:
    """For a network of output stride 8."""
    geometry = stretched(frame, (scores.shape[1] * 8, scores.shape[2] * 8))
    output = OutputSpec("scores", coordinates)
    return axis_for(geometry, 0, scores.shape[1], output), axis_for(geometry, 1, scores.shape[2], output)


def plain_mask(scores: Scores, rows: Axis, columns: Axis) -> np.ndarray:
    """All scores at full size in float32, then argmax."""
    one = np.float32(1)
    with np.errstate(all="ignore"):
        wide = scores[:, :, columns.low] * (one - columns.weight) + scores[:, :, columns.high] * columns.weight
        weight = rows.weight[:, None]
        full = wide[:, rows.low] * (one - weight) + wide[:, rows.high] * weight
    assert full.dtype == np.float32
    return np.asarray(full.argmax(axis=0))


@given(adversarial_scores(), st.integers(1, 24), st.integers(1, 24), st.sampled_from(["half-pixel", "align-corners"]))
@settings(deadline=None, max_examples=200)
@example(np.array([[[0.0]], [[DENORMAL]]], np.float32).repeat(2, axis=1), 9, 9, "half-pixel")
@example(np.zeros((3, 1, 1), np.float32), 1, 1, "align-corners")
@example(np.ones((1, 3, 3), np.float32), 5, 5, "half-pixel")
def test_every_pixel_is_the_plain_methods(scores: Scores, height: int, width: int, coordinates: Any) -> None:
    rows, columns = axes(scores, (height, width), coordinates)
    assert np.array_equal(upsample_argmax(scores, rows, columns), plain_mask(scores, rows, columns))


def near_ties(count: int) -> list[Scores]:
    """Maps where one class leads by an ulp or two at all corners."""
    random = np.random.default_rng(7)
    maps = []
    for _ in range(count):
        base = random.uniform(1, 2, (1, 3, 3)).astype(np.float32)
        lead = random.integers(0, 3, (2, 3, 3)).astype(np.float32) * np.float32(ULP)
        maps.append(base + lead)
    return maps


def count_wrong(maps: list[Scores]) -> int:
    wrong = 0
    for scores in maps:
        rows, columns = axes(scores, (23, 29))
        wrong += not np.array_equal(upsample_argmax(scores, rows, columns), plain_mask(scores, rows, columns))
    return wrong


def test_leads_of_one_ulp_are_settled_as_the_plain_method_settles_them(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = near_ties(40)
    assert count_wrong(maps) == 0
    monkeypatch.setattr(module, "ROUNDING", 0.0)
    assert count_wrong(maps) > 0, "without the margin these maps must come out wrong, or they prove nothing"


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("others_are_clear", [False, True])
def test_a_cell_is_settled_by_all_four_corners_together(corner: tuple[int, int], others_are_clear: bool) -> None:
    random = np.random.default_rng(3)
    clear = np.full((2, 2), others_are_clear)
    clear[corner] = not others_are_clear
    for _ in range(8):
        base = random.uniform(1, 2, (2, 2)).astype(np.float32)
        ahead = np.nextafter(base, np.float32(3)) + clear * np.float32(40 * ULP)
        scores = np.stack([base, ahead])
        rows, columns = axes(scores, (200, 200))
        assert np.array_equal(upsample_argmax(scores, rows, columns), plain_mask(scores, rows, columns))


def test_denormal_leads_are_settled_as_the_plain_method_settles_them(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = [np.array([[[0.0]], [[k * DENORMAL]]], np.float32).repeat(2, axis=1).repeat(2, axis=2) for k in range(1, 6)]
    assert count_wrong(maps) == 0
    monkeypatch.setattr(module, "UNDERFLOW", 0.0)
    assert count_wrong(maps) > 0, "without the margin these maps must come out wrong, or they prove nothing"


def exact_scores(scores: Scores, rows: Axis, columns: Axis, y: int, x: int) -> list[Fraction]:
    """Interpolated in rational numbers, with weights that sum to one."""
    down, across = Fraction(float(rows.weight[y])), Fraction(float(columns.weight[x]))
    found = []
    for plane in scores:
        total = Fraction(0)
        for row, vertical in ((rows.low[y], 1 - down), (rows.high[y], down)):
            for column, horizontal in ((columns.low[x], 1 - across), (columns.high[x], across)):
                total += Fraction(float(plane[row, column])) * vertical * horizontal
        found.append(total)
    return found


@given(adversarial_scores().filter(lambda s: np.abs(s).max() < 1e38), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=80)
def test_no_class_is_chosen_that_exact_arithmetic_puts_behind_by_more_than_rounding(
    scores: Scores, height: int, width: int
) -> None:
    rows, columns = axes(scores, (height, width))
    mask = upsample_argmax(scores, rows, columns)
    # The bound that the margin rests on: 6 eps of the largest score, and what products below the normal numbers lose.
    bound = 6 * Fraction(ULP) * Fraction(float(np.abs(scores).max())) + 8 * Fraction(DENORMAL)
    for y in range(height):
        for x in range(width):
            exact = exact_scores(scores, rows, columns, y, x)
            assert max(exact) - exact[mask[y, x]] <= bound


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_give_what_the_plain_method_gives(broken: float) -> None:
    scores = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    scores[1, 2, 2] = broken
    rows, columns = axes(scores, (31, 37))
    assert np.array_equal(upsample_argmax(scores, rows, columns), plain_mask(scores, rows, columns))


def test_all_255_classes_are_told_apart() -> None:
    scores = np.random.default_rng(0).standard_normal((255, 17, 17)).astype(np.float32)
    rows, columns = axes(scores, (40, 40))
    mask = upsample_argmax(scores, rows, columns)
    assert mask.dtype == np.uint8
    assert mask.max() > 240
    assert np.array_equal(mask, plain_mask(scores, rows, columns))


def test_the_mask_does_not_depend_on_how_many_pixels_are_interpolated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    rows, columns = axes(scores, (41, 43))
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 7)
    assert np.array_equal(upsample_argmax(scores, rows, columns), plain_mask(scores, rows, columns))


def test_only_cells_at_a_border_between_classes_are_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.zeros((3, 10, 10), np.float32)
    scores[0, :, :5] = scores[1, :, 5:] = 1
    scores[2] = -1
    rows, columns = axes(scores, (80, 80))
    seen: list[tuple[int, ...]] = []
    choose = module._of_two

    def counted(block: Any, members: Any) -> Any:
        seen.append((len(members), *block.count))
        return choose(block, members)

    monkeypatch.setattr(module, "_of_two", counted)
    mask = upsample_argmax(scores, rows, columns)
    assert (mask[:, :40] == 0).all() and (mask[:, 40:] == 1).all()
    # The one between the centres of columns 4 and 5 in each of the 10 runs of rows: 9 cells, and the half one at the end.
    assert seen == [(10, *[2] * 10)]


def test_few_pixels_are_left_to_the_plain_method(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).standard_normal((19, 16, 32)).astype(np.float32)
    rows, columns = axes(scores, (256, 512))
    seen: list[int] = []
    at = module.interpolated_at

    def counted(scores: Any, rows: Axis, columns: Axis, y: Any, x: Any) -> Any:
        seen.append(y.size)
        return at(scores, rows, columns, y, x)

    monkeypatch.setattr(module, "interpolated_at", counted)
    assert np.array_equal(upsample_argmax(scores, rows, columns), plain_mask(scores, rows, columns))
    assert 0 < sum(seen) < 256 * 512 / 100  # though every cell of this noise is mixed


@given(st.data(), st.integers(2, 9), st.booleans())
@settings(deadline=None, max_examples=60)
def test_mixed_cells_of_any_number_of_classes_are_the_plain_methods(data: st.DataObject, classes: int, mirrored: bool) -> None:
    """Smooth maps of several classes that lead in turn, upsampled so far that cells are blocks; also right to left."""
    seed, steps = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from([2.0**-3, 2.0**-20]))
    random = np.random.default_rng(seed)
    scores = (np.round(random.standard_normal((classes, 4, 5)) / steps) * steps).astype(np.float32)
    rows, columns = axes(scores, (data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))))
    if mirrored:
        columns = Axis(columns.low[::-1], columns.high[::-1], columns.weight[::-1])
    assert np.array_equal(upsample_argmax(scores, rows, columns), plain_mask(scores, rows, columns))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("frame", [(64, 96), (33, 257), (5, 7), (1, 1), (8, 12)])
@pytest.mark.parametrize("size", [(8, 12), (1, 12), (8, 1)])
def test_interpolation_is_pytorchs(frame: tuple[int, int], size: tuple[int, int], align: bool) -> None:
    torch = pytest.importorskip("torch")
    scores = np.random.default_rng(0).standard_normal((6, *size)).astype(np.float32)
    # PyTorch aligns the corners of the map with those of its output: the input itself, where frame and input are one.
    geometry = stretched(frame, frame if align else (size[0] * 8, size[1] * 8))
    mask = mask_from_scores(scores, geometry, OutputSpec("scores", "align-corners" if align else "half-pixel"))
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(scores)[None].double(), frame, mode="bilinear", align_corners=align
    )[0].numpy()
    best, second = np.sort(theirs, axis=0)[[-1, -2]]
    clear = best - second > 1e-4
    assert clear.mean() > 0.95
    assert np.array_equal(mask[clear], theirs.argmax(0)[clear])


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.booleans())
@settings(deadline=None, max_examples=100)
def test_positions_are_those_of_exact_arithmetic(frame: int, size: int, scores: int, align: bool) -> None:
    output = OutputSpec("scores", "align-corners" if align else "half-pixel")
    found = axis_for(stretched((frame, 1), (size, 1)), 0, scores, output)
    for i in range(frame):
        position = (i + Fraction(1, 2)) * Fraction(size, frame) - Fraction(1, 2)  # in the input
        if align:
            position = position * Fraction(scores - 1, size - 1) if size > 1 else Fraction(0)
        else:
            position = (position + Fraction(1, 2)) * Fraction(scores, size) - Fraction(1, 2)
        position = min(max(position, Fraction(0)), Fraction(scores - 1))
        assert found.low[i] + float(found.weight[i]) == pytest.approx(float(position), abs=1e-5)
        assert 0 <= found.low[i] <= found.high[i] <= scores - 1
        assert 0 <= found.weight[i] <= 1


@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
@settings(deadline=None, max_examples=100)
def test_ids_are_taken_from_the_pixel_that_covers_the_frames_pixel_centre(
    frame: tuple[int, int], size: tuple[int, int]
) -> None:
    ids = (np.arange(size[0] * size[1]) % 256).reshape(size)
    mask = mask_from_ids(ids, stretched(frame, (64, 64)))
    for y in range(frame[0]):
        for x in range(frame[1]):
            centre = (Fraction(2 * y + 1, 2 * frame[0]) * size[0], Fraction(2 * x + 1, 2 * frame[1]) * size[1])
            allowed = [  # two where the centre lies on the line between pixels
                {int(c), int(c) - 1} if c.denominator == 1 else {int(c)} for c in centre
            ]
            assert mask[y, x] in {ids[i % size[0], j % size[1]] for i in allowed[0] for j in allowed[1]}
