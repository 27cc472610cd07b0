"""What quantisation costs, against plain loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from quantization_scores import (
    BOUNDARY_PIXELS,
    MaskScores,
    agreement,
    near_boundary,
    resampled_drops,
    score_masks,
    worst_class_drop,
)

from dlv3deploy.core.classes import Classes

pytest.importorskip("cv2")

VOID = 255
THREE = Classes(("road", "car", "sky"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)), VOID)


def blocks(seed: int, ids: tuple[int, ...], size: tuple[int, int] = (40, 56), grain: int = 8) -> NDArray[np.uint8]:
    """A label of patches, large enough that some pixels lie far from every boundary."""
    small = np.random.default_rng(seed).choice(np.array(ids, np.uint8), (size[0] // grain, size[1] // grain))
    return np.kron(small, np.ones((grain, grain), np.uint8))


def near_boundary_by_hand(label: NDArray[np.uint8], pixels: int) -> NDArray[np.bool_]:
    found = np.zeros(label.shape, bool)
    for y in range(label.shape[0]):
        for x in range(label.shape[1]):
            window = label[max(0, y - pixels) : y + pixels + 1, max(0, x - pixels) : x + pixels + 1]
            found[y, x] = (window != label[y, x]).any()
    return found


def miou_by_hand(mask: NDArray[np.uint8], label: NDArray[np.uint8], counted: NDArray[np.bool_]) -> float:
    shares = []
    for each in range(len(THREE)):
        union = (((mask == each) | (label == each)) & counted).sum()
        if union:
            shares.append(((mask == each) & (label == each) & counted).sum() / union)
    return float(np.mean(shares))


@pytest.mark.parametrize("pixels", [1, 3, BOUNDARY_PIXELS])
@pytest.mark.parametrize("seed", range(3))
def test_boundaries_are_where_another_id_lies_in_the_window(seed: int, pixels: int) -> None:
    label = blocks(seed, (0, 1, 2, VOID), grain=8)
    assert np.array_equal(near_boundary(label, pixels), near_boundary_by_hand(label, pixels))


def test_one_id_everywhere_has_no_boundary() -> None:
    assert not near_boundary(np.full((9, 9), 4, np.uint8), BOUNDARY_PIXELS).any()


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_counted_by_hand_and_void_counts_nowhere(seed: int) -> None:
    label = blocks(seed, (0, 0, 0, 1, 2, VOID), (64, 96), grain=16)
    random = np.random.default_rng(seed)
    mask = np.where(random.random(label.shape) < 0.2, random.integers(0, 3, label.shape), np.minimum(label, 2)).astype(np.uint8)
    floats = np.minimum(label, 2)
    scores = score_masks([mask], [label], [floats], THREE)
    counted = label != VOID
    assert scores.miou == pytest.approx(miou_by_hand(mask, label, counted))
    near = near_boundary_by_hand(label, BOUNDARY_PIXELS)
    assert scores.boundary_miou == pytest.approx(miou_by_hand(mask, label, counted & near))
    assert scores.boundary_miou != pytest.approx(scores.miou)
    assert scores.agreement == pytest.approx((mask == floats).mean())
    assert scores.images == 1
    again, other = (score_masks([given], [label], [floats], THREE).masks_sha256 for given in (mask.copy(), floats))
    assert scores.masks_sha256 == again != other


def test_agreement_counts_pixels_of_images_of_any_size() -> None:
    ones = [np.ones((2, 3), np.uint8), np.ones((4, 5), np.uint8)]
    others = [np.ones((2, 3), np.uint8), np.zeros((4, 5), np.uint8)]
    assert agreement(ones, others) == 6 / 26


def test_the_error_of_the_drop_is_how_far_it_moves_from_one_set_of_images_to_another() -> None:
    """Sets of 40 images drawn from one stream: their drops scatter as each set alone foretells."""
    random = np.random.default_rng(5)

    def drawn() -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
        labels = [random.integers(0, 3, (12, 12), np.uint8) for _ in range(40)]
        wrong = [random.random((12, 12)) < random.uniform(0, 0.6) for _ in labels]  # by image, as real mistakes are
        after = [np.where(w, 0, label).astype(np.uint8) for w, label in zip(wrong, labels, strict=True)]
        return labels, after, [np.where(random.random((12, 12)) < 0.1, 1, label).astype(np.uint8) for label in labels]

    errors, drops = [], []
    for _ in range(60):
        labels, after, floats = drawn()
        scores = score_masks(after, labels, floats, THREE)
        errors.append(scores.drop_error or 0)
        drops.append(score_masks(floats, labels, floats, THREE).miou - scores.miou)
    assert np.mean(errors) == pytest.approx(np.std(drops, ddof=1), rel=0.3)
    assert max(errors) < 4 * min(errors)  # blocks of few images leave much to chance themselves


def test_equal_masks_lose_nothing_whichever_images_are_drawn() -> None:
    counts = np.random.default_rng(1).integers(0, 9, (20, 3, 3))
    assert not np.any(resampled_drops(counts, counts, THREE))
    assert np.std(resampled_drops(counts, counts[::-1], THREE)) > 0
    assert resampled_drops(counts[:1], counts[1:2], THREE) == []  # of one image there is no other choice


def test_images_that_come_in_runs_alike_leave_more_to_chance_than_as_many_that_differ() -> None:
    """Four frames of each scene tell little more than one: the error is that of the scenes."""
    random = np.random.default_rng(2)
    shares = np.repeat(random.uniform(0, 0.5, 25), 4)  # of wrong pixels, by frame
    floats = np.tile(np.diag([100, 100, 100]), (100, 1, 1))
    counts = floats.copy()
    wrong = (100 * shares).astype(int)
    counts[:, 0, 0] -= wrong
    counts[:, 0, 1] += wrong
    order = random.permutation(100)
    runs, mixed = (np.std(resampled_drops(c, floats, THREE)) for c in (counts, counts[order]))
    assert runs > 1.4 * mixed


def test_two_methods_differ_by_less_chance_than_each_from_the_float_model() -> None:
    alike = MaskScores(0.5, 0.4, {}, 1.0, 9, drops=[0.01, 0.05, 0.03])
    other = MaskScores(0.5, 0.4, {}, 1.0, 9, drops=[0.02, 0.06, 0.04])
    assert alike.drop_error == pytest.approx(0.02)
    assert alike.difference_error(other) == pytest.approx(0, abs=1e-12)
    assert MaskScores(0.5, 0.4, {}, 1.0, 1).difference_error(other) is None


def test_the_worst_class_is_the_one_that_loses_most_and_an_unseen_one_is_none() -> None:
    floats = MaskScores(0.5, 0.4, {"road": 0.9, "car": 0.5, "sky": None}, 1.0, 1)
    after = MaskScores(0.4, 0.3, {"road": 0.85, "car": 0.3, "sky": None}, 0.9, 1)
    name, drop = worst_class_drop(after, floats) or ("", 0.0)
    assert (name, drop) == ("car", pytest.approx(0.2))
    gone = MaskScores(0.4, 0.3, {"road": None, "car": 0.5, "sky": None}, 0.9, 1)
    assert worst_class_drop(gone, floats) == ("road", 0.9)
    nothing = MaskScores(0.0, 0.0, {"road": None}, 1.0, 1)
    assert worst_class_drop(nothing, nothing) is None
