"""Time codes: read from what was stamped, also after compression, and from nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_stand_ins import CLASSES, ListSink, brightness_segmenter, frames_of, grey_frame

from dlv3deploy.scenes import Drive
from dlv3deploy.video import Overlay, ReplayedSource, open_source, parse_source, run_pipeline
from dlv3deploy.video.frames import CapturedFrame
from dlv3deploy.video.recording import VideoRecording
from dlv3deploy.video.sink import Segmented
from dlv3deploy.video.time_code import HEIGHT, WIDTH, age_ms, stamp

NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)


@given(st.floats(0, 1e8), st.floats(-1000, 1e5))
@settings(deadline=None)
def test_the_age_is_what_passed_since(time_s: float, passed_s: float) -> None:
    frame = NOISE.copy()
    stamp(frame, time_s)
    assert age_ms(frame, time_s + passed_s) == pytest.approx(1000 * passed_s, abs=0.6)
    assert np.array_equal(frame[HEIGHT:], NOISE[HEIGHT:]) and np.array_equal(frame[:, WIDTH:], NOISE[:, WIDTH:])


@pytest.mark.parametrize("quality", [10, 50, 95])
def test_a_code_survives_jpeg(quality: int) -> None:
    frame = NOISE.copy()
    stamp(frame, 1234.567)
    data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    assert age_ms(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8), 1235.0) == pytest.approx(433, abs=0.6)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_code_survives_a_video(suffix: str, tmp_path: Path) -> None:
    times_s = [10.0, 10.04, 77.123, 4e6]
    with VideoRecording(tmp_path / f"coded{suffix}", 25.0) as sink:
        for index, time_s in enumerate(times_s):
            frame = grey_frame(90, 120, 160)
            stamp(frame, time_s)
            captured = CapturedFrame(frame, index, time_s, f"{index}")
            sink.write(Segmented(captured, np.zeros((120, 160), np.uint8), frame))
    ages = [age_ms(frame, time_s + 1) for frame, time_s in zip(frames_of(tmp_path / f"coded{suffix}"), times_s, strict=True)]
    assert ages == pytest.approx([1000] * 4, abs=0.6)


def test_frames_without_a_code_have_no_age() -> None:
    for frame in (NOISE, grey_frame(0), grey_frame(255), grey_frame(90, 20, 20), Drive(1, 120, 160).at(0.0)[0]):
        assert age_ms(frame, 1.0) is None
    coded = NOISE.copy()
    stamp(coded, 5.0)
    for y in range(HEIGHT // 8):
        for x in range(WIDTH // 8):
            spoiled = coded.copy()
            spoiled[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = 255 - spoiled[8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
            assert age_ms(spoiled, 5.0) is None


def test_glass_to_mask_is_what_the_whole_way_took() -> None:
    """A model that takes 50 ms; the source says a time of capture of its own, which the code does not know of."""
    camera = ReplayedSource([NOISE], fps=30.0, seconds=1.0)
    facts = run_pipeline(camera, brightness_segmenter(seconds=0.05), ListSink(), Overlay(CLASSES))
    assert facts.glass_ms is not None and facts.delay_ms is not None
    assert facts.glass_ms.p50 >= 50
    assert facts.glass_ms.p50 == pytest.approx(facts.delay_ms.p50, abs=20)
    assert facts.dropped > 0


def test_a_drawn_camera_can_carry_it() -> None:
    with open_source(parse_source("test://1?live=yes&code=yes&fps=20&seconds=1&size=96x128")) as source:
        frame = source.read()
        assert frame is not None
        assert age_ms(frame.pixels, frame.time_s) == pytest.approx(0, abs=1)
        now_s = time.monotonic()
        assert age_ms(frame.pixels, now_s) == pytest.approx(1000 * (now_s - frame.time_s), abs=1)
    with open_source(parse_source("test://1?size=96x128")) as source:
        frame = source.read()
        assert frame is not None and age_ms(frame.pixels, 0.0) is None
