"""A drawn drive as a source: the frames of its seed, with their true masks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from source_contract import SourceContract, some

from dlv3deploy.core.errors import UserError
from dlv3deploy.scenes import ROAD_SCENE, Drive
from dlv3deploy.video import Source, open_source, parse_source


class TestDrawn(SourceContract):
    @pytest.fixture
    def address(self) -> str:
        return "test://3?size=64x96&fps=4&seconds=1.5"

    def test_it_is_the_drive_of_its_seed_with_its_true_masks(self, source: Source) -> None:
        assert source.frame_count == 6 and source.truth_classes == ROAD_SCENE
        frames, drive = list(iter(source.read, None)), Drive(3, 64, 96)
        assert len(frames) == 6
        for frame in frames:
            pixels, truth = drive.at(frame.index / 4)
            assert np.array_equal(frame.pixels, pixels) and frame.truth is not None and np.array_equal(frame.truth, truth)


class TestLiveDrawn(SourceContract):
    live = True

    @pytest.fixture
    def address(self) -> str:
        return "test://3?size=64x96&fps=200&seconds=60&live=yes"

    def test_frames_are_numbered_dated_and_named_apart(self, source: Source) -> None:
        """As a camera does it goes on when nobody reads, so that numbers are left out."""
        indices = [frame.index for frame in some(source)]
        assert indices[0] == 0 and all(a < b for a, b in pairwise(indices))


def test_a_drawn_scene_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UserError, match="sides are 32 to 4096 pixels"):
        open_source(parse_source("test://0?size=8x8"))
