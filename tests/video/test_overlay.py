"""The overlay shows the classes, and the legend names them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from video_stand_ins import CLASSES, grey_frame

from dlv3deploy.core.classes import CAMVID, VOC, Classes
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Mask
from dlv3deploy.video import Overlay
from dlv3deploy.video.legend import percent
from dlv3deploy.video.text import TextPainter


def halves(height: int, width: int, left: int = 0, right: int = 2) -> Mask:
    mask = np.full((height, width), left, np.uint8)
    mask[:, width // 2 :] = right
    return mask


def test_opacity_0_is_the_frame() -> None:
    frame = grey_frame(100, 240, 320)
    picture = Overlay(CLASSES, opacity=0)(frame, halves(240, 320))
    assert np.array_equal(picture, frame)
    assert picture is not frame


def test_opacity_1_is_the_colours_away_from_the_legend() -> None:
    picture = Overlay(CLASSES, opacity=1)(grey_frame(100, 240, 320), halves(240, 320))
    assert tuple(picture[-1, 0]) == CLASSES.palette[0][::-1]
    assert tuple(picture[-1, -1]) == CLASSES.palette[2][::-1]


def test_half_opacity_is_the_mean_of_frame_and_colour() -> None:
    picture = Overlay(CLASSES)(grey_frame(100, 240, 320), halves(240, 320))
    expected = (np.array(CLASSES.palette[2][::-1]) + 100) / 2
    assert np.abs(picture[-1, -1] - expected).max() <= 1


def test_the_frame_itself_is_not_touched() -> None:
    frame = grey_frame(100, 240, 320)
    Overlay(CLASSES)(frame, halves(240, 320))
    assert np.array_equal(frame, grey_frame(100, 240, 320))


def test_black_classes_and_ids_without_a_class_leave_the_frame_as_it_is() -> None:
    picture = Overlay(VOC, opacity=0.7)(grey_frame(100, 240, 320), halves(240, 320, left=0, right=255))
    assert (picture[-1] == 100).all()


def test_an_opacity_outside_0_to_1_is_refused() -> None:
    with pytest.raises(UserError, match=r"opacity 1\.5"):
        Overlay(CLASSES, opacity=1.5)


def legend_of(classes: Classes, mask: Mask) -> NDArray[np.bool_]:
    """What the legend changed, as a mask: the overlay against the same one without classes to name."""
    frame = grey_frame(100, *mask.shape)
    picture = Overlay(classes, opacity=1)(frame, mask)
    bare = np.zeros_like(frame)
    for i, colour in enumerate(classes.palette):
        bare[mask == i] = colour[::-1]
    changed: NDArray[np.bool_] = (picture != bare).any(axis=2)
    return changed


def test_the_legend_stays_in_its_corner() -> None:
    changed = legend_of(CLASSES, halves(240, 320))
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert 0 < rows[0] < rows[-1] < 120
    assert 0 < columns[0] < columns[-1] < 176


def test_the_legend_names_only_the_classes_in_the_mask() -> None:
    one, two = legend_of(CLASSES, halves(240, 320, 1, 1)), legend_of(CLASSES, halves(240, 320, 1, 2))
    assert np.flatnonzero(two.any(axis=1)).size > np.flatnonzero(one.any(axis=1)).size


def test_another_name_changes_the_legend() -> None:
    renamed = Classes(("dark", "middle", "blight"), CLASSES.palette)
    mask, frame = halves(240, 320), grey_frame(100, 240, 320)
    assert not np.array_equal(Overlay(CLASSES)(frame, mask), Overlay(renamed)(frame, mask))


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (48, 64), (120, 160), (1000, 90), (360, 480), (2160, 3840)])
def test_every_frame_size_works_with_every_class_present(size: tuple[int, int]) -> None:
    mask = (np.arange(size[0] * size[1]) % len(CAMVID)).astype(np.uint8).reshape(size)
    picture = Overlay(CAMVID)(grey_frame(100, *size), mask)
    assert picture.shape == (*size, 3)


@pytest.mark.parametrize("name", ["Straße", "дорога", "道路", "🚗", "", " \n ", "x" * 500, "طريق"])
def test_any_name_can_be_drawn(name: str) -> None:
    classes = Classes((name, "b", "c"), CLASSES.palette)
    assert legend_of(classes, halves(240, 320)).any()


def test_a_long_name_is_shortened_to_its_room() -> None:
    painter = TextPainter()
    assert painter.fitted("a name that is far too long", 12, 60).width <= 60
    assert painter.fitted("road", 12, 60) is painter.letters("road", 12)


def test_text_is_anti_aliased() -> None:
    coverage = TextPainter().letters("Road", 16).coverage
    assert ((coverage > 0.1) & (coverage < 0.9)).any()


def test_shares_are_whole_percents_and_a_trace_is_not_nothing() -> None:
    assert [percent(share) for share in (1.0, 0.256, 0.01, 0.0004)] == ["100%", "26%", "1%", "<1%"]
