"""What every source promises; a kind of source inherits this and says where it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from video_stand_ins import HANG_LIMIT_S

from dlv3deploy.core.errors import UserError
from dlv3deploy.video import CapturedFrame, Source, open_source, parse_source

ENOUGH = 8


class SourceContract:
    """Inherited by every kind of source; a subclass names it in `address`."""

    live = False

    @pytest.fixture
    def address(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def source(self, address: str) -> Iterator[Source]:
        with open_source(parse_source(address)) as source:
            yield source

    def test_it_says_whether_it_is_live(self, source: Source) -> None:
        assert source.live == self.live

    def test_frames_are_bgr_bytes_of_the_size_it_states(self, source: Source) -> None:
        for frame in some(source):
            assert frame.pixels.dtype == np.uint8
            assert frame.pixels.shape == (*source.size, 3)
            assert frame.pixels.flags.c_contiguous

    def test_frames_are_numbered_dated_and_named_apart(self, source: Source) -> None:
        frames = some(source)
        assert [frame.index for frame in frames] == list(range(len(frames)))
        assert all(a.time_s <= b.time_s for a, b in pairwise(frames))
        assert len({frame.name for frame in frames}) == len(frames)
        assert not any("/" in frame.name or "." in frame.name for frame in frames)

    def test_every_frame_has_pixels_of_its_own(self, source: Source) -> None:
        frames = some(source)
        kept = [frame.pixels.copy() for frame in frames]
        assert all(np.array_equal(frame.pixels, copy) for frame, copy in zip(frames, kept, strict=True))

    def test_the_rate_is_plausible_or_unknown(self, source: Source) -> None:
        assert source.fps is None or 0 < source.fps < 1000

    def test_after_close_there_are_no_frames(self, source: Source) -> None:
        source.close()
        source.close()
        assert source.read() is None

    def test_it_may_be_closed_while_another_thread_reads(self, source: Source) -> None:
        def read_on() -> None:
            with suppress(UserError):  # the camera's stand-in may come to its end first
                for _ in iter(source.read, None):
                    pass

        reader = threading.Thread(target=read_on)
        reader.start()
        source.close()
        reader.join(HANG_LIMIT_S)
        assert not reader.is_alive()


def some(source: Source) -> list[CapturedFrame]:
    frames: list[CapturedFrame] = []
    while len(frames) < ENOUGH and (frame := source.read()) is not None:
        frames.append(frame)
    return frames
