"""Pictures and videos as cameras and programs store them: turned, grey, deep, with alpha, of odd sizes, of uneven pace."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mp4_boxes import retime, turn
from PIL import Image
from video_stand_ins import CLASSES, brightness_segmenter, frames_of, result_of, write_video

from dlv3deploy.core.images import read_frame
from dlv3deploy.video.capture import open_source
from dlv3deploy.video.json_lines import JsonLines
from dlv3deploy.video.overlay import Overlay
from dlv3deploy.video.pipeline import run_pipeline
from dlv3deploy.video.recording import VideoRecording
from dlv3deploy.video.source import parse_source

cv2 = pytest.importorskip("cv2")
RED, BLUE = (0, 0, 200), (200, 0, 0)  # in BGR


def marked(height: int = 60, width: int = 90) -> np.ndarray:
    """Grey, with a red corner at the upper left and a blue one at the upper right."""
    frame = np.full((height, width, 3), 120, np.uint8)
    frame[: height // 3, : width // 3] = RED
    frame[: height // 3, -(width // 3) :] = BLUE
    return frame


def corners(frame: np.ndarray) -> list[str]:
    """What lies in the corners, clockwise from the upper left."""
    names = []
    for y, x in ((4, 4), (4, -5), (-5, -5), (-5, 4)):
        blue, _, red = (int(value) for value in frame[y, x])
        names.append("red" if red > blue + 60 else "blue" if blue > red + 60 else "grey")
    return names


@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, ["red", "blue", "grey", "grey"]),
        (2, ["blue", "red", "grey", "grey"]),
        (3, ["grey", "grey", "red", "blue"]),
        (4, ["grey", "grey", "blue", "red"]),
        (5, ["red", "grey", "grey", "blue"]),
        (6, ["grey", "red", "blue", "grey"]),
        (7, ["grey", "blue", "red", "grey"]),
        (8, ["blue", "grey", "grey", "red"]),
    ],
)
def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path, orientation: int, seen: list[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(marked()[:, :, ::-1]).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    frame = read_frame(tmp_path / "photo.jpg")
    assert frame.shape == ((60, 90, 3) if orientation < 5 else (90, 60, 3))
    assert corners(frame) == seen


@pytest.mark.parametrize(
    ("degrees", "seen"),
    [
        (0, ["red", "blue", "grey", "grey"]),
        (90, ["grey", "red", "blue", "grey"]),
        (180, ["grey", "grey", "red", "blue"]),
        (270, ["blue", "grey", "grey", "red"]),
    ],
)
def test_a_video_is_turned_as_its_track_says(tmp_path: Path, degrees: int, seen: list[str]) -> None:
    """And so are its masks and recordings, which say nothing of turning themselves."""
    path = tmp_path / "phone.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (90, 60))
    for _ in range(3):
        writer.write(marked())
    writer.release()
    turn(path, degrees)
    size = (60, 90) if degrees % 180 == 0 else (90, 60)
    with open_source(parse_source(str(path))) as source:
        assert source.size == size
        sink = VideoRecording(tmp_path / "labelled.mp4", source.fps)
        run_pipeline(source, brightness_segmenter(), sink, Overlay(CLASSES, opacity=0))
    found = frames_of(tmp_path / "labelled.mp4")
    assert len(found) == 3
    for frame in found:
        assert frame.shape == (*size, 3)
        assert corners(frame) == seen


GREY = np.arange(60 * 90, dtype=np.uint32).reshape(60, 90) * 12  # to 64788, in 16 bits


@pytest.mark.parametrize(
    ("name", "stored", "wanted"),
    [
        ("grey.png", (GREY >> 8).astype(np.uint8), np.repeat((GREY >> 8)[:, :, None], 3, 2)),
        ("deep grey.png", GREY.astype(np.uint16), np.repeat((GREY / 257)[:, :, None], 3, 2)),
        ("deep.png", np.repeat(GREY.astype(np.uint16)[:, :, None], 3, 2), np.repeat((GREY / 257)[:, :, None], 3, 2)),
        ("alpha.png", np.dstack([marked(), np.zeros((60, 90), np.uint8)]), marked()),
        ("deep alpha.png", np.dstack([marked(), marked()[:, :, 0]]).astype(np.uint16) * 257, marked()),
        ("deep grey.tif", GREY.astype(np.uint16), np.repeat((GREY / 257)[:, :, None], 3, 2)),
        ("alpha.webp", np.dstack([np.full((60, 90, 3), 50, np.uint8), np.full((60, 90), 255, np.uint8)]), None),
    ],
)
def test_any_kind_of_pixels_becomes_colours_of_8_bits(
    tmp_path: Path, name: str, stored: np.ndarray, wanted: np.ndarray | None
) -> None:
    cv2.imwrite(str(tmp_path / name), stored)
    frame = read_frame(tmp_path / name)
    assert frame.dtype == np.uint8
    assert np.abs(frame - (np.full((60, 90, 3), 50.0) if wanted is None else wanted.astype(float))).max() <= 1.01


def test_a_palette_s_colours_are_what_is_seen(tmp_path: Path) -> None:
    image = Image.fromarray((marked()[:, :, 2] > 150).astype(np.uint8))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(tmp_path / "palette.png")
    frame = read_frame(tmp_path / "palette.png")
    assert frame[30, 45].tolist() == [30, 20, 10] and frame[4, 4].tolist() == [50, 100, 200]


BARS = """
import sys, gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
kind, path = sys.argv[1:]
bars = f"videotestsrc num-buffers=4 pattern=smpte ! video/x-raw,format={kind},width=320,height=240,framerate=10/1"
pipeline = Gst.parse_launch(f"{bars} ! x264enc ! h264parse ! mp4mux ! filesink location={path}")
pipeline.set_state(Gst.State.PLAYING)
ended = pipeline.get_bus().timed_pop_filtered(60 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
sys.exit(ended is None or ended.type != Gst.MessageType.EOS)
"""


@pytest.mark.parametrize("kind", ["I420_10LE", "I422_10LE", "Y444_10LE"])
def test_videos_of_10_bits_are_seen_in_8(tmp_path: Path, kind: str) -> None:
    """Bars of white, yellow, cyan and green, encoded by GStreamer."""
    made = subprocess.run(["/usr/bin/python3", "-c", BARS, kind, str(tmp_path / "ten.mp4")], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"GStreamer cannot encode {kind} here: {made.stderr.decode()[-200:]}")
    with open_source(parse_source(str(tmp_path / "ten.mp4"))) as source:
        frame = source.read()
    assert frame is not None and frame.pixels.dtype == np.uint8
    found = frame.pixels[100, [20, 60, 110, 160]].astype(int)
    assert np.abs(found - [[255, 255, 255], [0, 255, 255], [255, 255, 0], [0, 255, 0]]).max() <= 3


def uneven(path: Path, seconds: list[float]) -> Path:
    write_video(path, frames=len(seconds))
    retime(path, seconds)
    return path


def test_the_lines_of_a_video_say_where_each_frame_lies_in_it(tmp_path: Path) -> None:
    video = uneven(tmp_path / "uneven.mp4", [0.04, 0.04, 1.0, 0.04, 0.5, 0.04])
    with open_source(parse_source(str(video))) as source:
        run_pipeline(source, brightness_segmenter(), JsonLines(tmp_path / "lines.jsonl", CLASSES), Overlay(CLASSES))
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [line["position"] for line in lines] == pytest.approx([0, 0.04, 0.08, 1.08, 1.12, 1.62], abs=2e-3)


def test_other_sources_have_no_position(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "lines.jsonl", CLASSES)
    sink.write(result_of(0))
    sink.close()
    assert json.loads((tmp_path / "lines.jsonl").read_text())["position"] is None


def test_a_frame_that_lasts_longer_is_shown_as_long(tmp_path: Path) -> None:
    """A still of two seconds in a recording of a screen stays one, and no frame is left out."""
    video = uneven(tmp_path / "screen.mp4", [0.1] * 5 + [2.0] + [0.1] * 5)
    with open_source(parse_source(str(video))) as source:
        fps = source.fps
        assert fps == pytest.approx(11 / 3, rel=0.01)
        sink = VideoRecording(tmp_path / "labelled.mp4", 10.0)
        run_pipeline(source, brightness_segmenter(), sink, Overlay(CLASSES, opacity=0))
    shades = [int(frame.mean() / 20 + 0.5) for frame in frames_of(tmp_path / "labelled.mp4")]
    assert shades == [0, 1, 2, 3, 4, *[5] * 20, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("every", [1, 3])
def test_a_video_of_even_pace_is_recorded_frame_by_frame(tmp_path: Path, every: int) -> None:
    from dlv3deploy.video.thinned import ThinnedSource

    video = tmp_path / "even.mp4"
    write_video(video, frames=30)
    with ThinnedSource(open_source(parse_source(str(video))), every) as source:
        sink = VideoRecording(tmp_path / "labelled.mp4", source.fps)
        run_pipeline(source, brightness_segmenter(), sink, Overlay(CLASSES))
    assert len(frames_of(tmp_path / "labelled.mp4")) == 30 // every
