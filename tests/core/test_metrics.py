"""IoU and accuracy, against a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dlv3deploy.core.classes import Classes, palette_for
from dlv3deploy.core.metrics import ConfusionMatrix, SegmentationScores

IGNORED = 7
CLASSES = Classes(("road", "car", "sky"), palette_for(3), IGNORED)
LABELS = st.sampled_from([0, 1, 2, IGNORED])

images = st.lists(
    st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
        lambda size: st.tuples(
            arrays(np.uint8, size, elements=st.integers(0, 2)),
            arrays(np.uint8, size, elements=LABELS),
        )
    ),
    min_size=1,
    max_size=3,
)


def scores_of(pairs: list[tuple[np.ndarray, np.ndarray]], classes: Classes = CLASSES) -> SegmentationScores:
    matrix = ConfusionMatrix(classes)
    for mask, label in pairs:
        matrix.collect(mask, label)
    return matrix.compute()


@given(images)
@settings(deadline=None, max_examples=100)
def test_scores_are_those_of_counting_pixel_by_pixel(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    pixels = [(int(m), int(t)) for mask, label in pairs for m, t in zip(mask.ravel(), label.ravel(), strict=True)]
    scored = [(m, t) for m, t in pixels if t != IGNORED]
    found = scores_of(pairs)
    known = []
    for identity, name in enumerate(CLASSES.names):
        both = sum(m == identity and t == identity for m, t in scored)
        either = sum(m == identity or t == identity for m, t in scored)
        if either:
            known.append(both / either)
            assert found.per_class_iou[name] == pytest.approx(both / either)
        else:
            assert found.per_class_iou[name] is None
    assert found.miou == pytest.approx(sum(known) / len(known) if known else 0)
    assert found.pixel_accuracy == pytest.approx(sum(m == t for m, t in scored) / len(scored) if scored else 0)
    assert found.images == len(pairs)


def test_a_class_that_is_nowhere_does_not_touch_the_mean() -> None:
    label = np.array([[0, 0, 1, 1]], np.uint8)
    found = scores_of([(label, label)])
    assert found.per_class_iou == {"road": 1, "car": 1, "sky": None}
    assert found.miou == 1


def test_a_class_that_only_the_mask_holds_counts_as_missed() -> None:
    found = scores_of([(np.array([[0, 2]], np.uint8), np.array([[0, 0]], np.uint8))])
    assert found.per_class_iou == {"road": 0.5, "car": None, "sky": 0}
    assert found.miou == 0.25


def test_pixels_under_an_ignored_label_do_not_count_whatever_the_mask_says() -> None:
    label = np.array([[0, IGNORED, 255]], np.uint8)
    assert scores_of([(np.array([[0, 2, 1]], np.uint8), label)]).miou == 1


def test_the_mean_is_over_all_images_at_once_not_over_images() -> None:
    right = np.zeros((1, 9), np.uint8)
    wrong = np.ones((1, 1), np.uint8)
    found = scores_of([(right, right), (wrong, np.zeros((1, 1), np.uint8))])
    assert found.per_class_iou["road"] == pytest.approx(0.9)


def test_a_mask_of_more_classes_than_the_model_has_is_refused() -> None:
    with pytest.raises(ValueError, match="3 classes"):
        scores_of([(np.array([[3]], np.uint8), np.array([[0]], np.uint8))])


def test_255_classes_are_counted_apart() -> None:
    classes = Classes(tuple(f"c{i}" for i in range(255)), palette_for(255), 255)
    label = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert scores_of([(np.minimum(label, 254), label)], classes).miou == 1
    shifted = scores_of([((np.minimum(label, 254) + 1) % 255, label)], classes)
    assert shifted.miou == shifted.pixel_accuracy == 0
