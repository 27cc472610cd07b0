"""Sinks but for videos, several at once, and how they are named."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sink_contract import RECORDED, SinkContract
from video_stand_ins import CLASSES, ListSink, frames_of, grey_frame, result_of, write_video

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import read_frame, read_label, write_frame
from dlv3deploy.video import Sink, Tee, open_sink, open_sinks, open_source, parse_source
from dlv3deploy.video.sink import FrameWork
from dlv3deploy.video.sinks import is_picture


class TestJsonLines(SinkContract):
    text = "results/run.jsonl"

    def test_a_line_says_when_the_frame_was_captured_and_what_is_in_it(self, sink: Sink, tmp_path: Path) -> None:
        mask = np.zeros((48, 64), np.uint8)
        mask[:12] = 2
        stages = {"preprocessing": 0.001, "inference": 0.01, "postprocessing": 0.002}
        captured_s = time.monotonic()
        result = replace(result_of(7, mask=mask, time_s=captured_s), work=FrameWork(stages, captured_s + 0.02))
        sink.write(result)
        (line,) = (tmp_path / self.text).read_text(encoding="utf-8").splitlines()  # before it is closed
        found = json.loads(line)
        assert (found["frame"], found["name"]) == (7, "frame_000007")
        assert found["time"] == pytest.approx(time.time(), abs=60)
        assert found["delay_ms"] == pytest.approx(20) and found["stages_ms"]["inference"] == pytest.approx(10)
        assert found["shares"] == {"dark": 0.75, "bright": 0.25}

    def test_an_earlier_run_s_file_stays_until_there_is_a_frame(self, sink: Sink, tmp_path: Path) -> None:
        sink.write(result_of(0))
        sink.close()
        before = (tmp_path / self.text).read_text()
        with open_sink(self.text, CLASSES, RECORDED) as again:
            assert (tmp_path / self.text).read_text() == before
            again.write(result_of(5))
            again.write(result_of(6))
        assert [json.loads(line)["frame"] for line in (tmp_path / self.text).read_text().splitlines()] == [5, 6]

    def test_what_no_run_wrote_stays(self, sink: Sink, tmp_path: Path) -> None:
        sink.close()
        assert not (tmp_path / self.text).exists()  # no frame came, and there was none before
        for text in ('{"frame": 1}\n', "notes\n", "[1]\n"):
            (tmp_path / "other.jsonl").write_text(text)
            with pytest.raises(UserError, match="was not written by a run"):
                open_sink(str(tmp_path / "other.jsonl"), CLASSES, RECORDED)
            assert (tmp_path / "other.jsonl").read_text() == text

    def test_a_file_of_a_version_without_positions_is_known(self, sink: Sink, tmp_path: Path) -> None:
        sink.write(result_of(0))
        sink.close()
        line = json.loads((tmp_path / self.text).read_text())
        del line["position"]
        (tmp_path / self.text).write_text(json.dumps(line) + "\n")
        with open_sink(self.text, CLASSES, RECORDED) as again:
            again.write(result_of(5))
        assert json.loads((tmp_path / self.text).read_text())["frame"] == 5


class TestNone(SinkContract):
    text = "none"

    def test_it_costs_no_overlay(self, sink: Sink) -> None:
        assert not sink.wants_overlay


class TestMaskFolder(SinkContract):
    text = "masks/"

    def test_it_costs_no_overlay(self, sink: Sink) -> None:
        assert not sink.wants_overlay

    def test_a_mask_reads_back_as_it_was_in_the_classes_colours(self, sink: Sink, tmp_path: Path) -> None:
        mask = (np.arange(48 * 64) % 3).astype(np.uint8).reshape(48, 64)
        sink.write(result_of(7, mask=mask))
        path = tmp_path / "masks" / "frame_000007.png"
        assert np.array_equal(read_label(path), mask)
        with Image.open(path) as image:
            assert image.mode == "P"
            assert image.convert("RGB").getpixel((1, 0)) == CLASSES.palette[1]


class TestOverlayFolder(SinkContract):
    text = "shown/*.jpg"

    def test_a_picture_is_the_frame_with_its_classes(self, sink: Sink, tmp_path: Path) -> None:
        assert sink.wants_overlay
        picture = grey_frame(90)
        picture[:, :, 2] = 200
        sink.write(replace(result_of(7), picture=picture))
        assert np.abs(read_frame(tmp_path / "shown" / "frame_000007.jpg").astype(int) - picture).mean() < 3

    def test_an_earlier_run_s_is_replaced_any_other_stays(self, sink: Sink, tmp_path: Path) -> None:
        path = tmp_path / "shown" / "frame_000000.jpg"
        for value in (10, 200):
            sink.write(replace(result_of(0), picture=grey_frame(value)))
            assert abs(float(read_frame(path).mean()) - value) < 3
        write_frame(path, grey_frame(50))
        with pytest.raises(UserError, match="was not written so by a run"):
            sink.write(result_of(0))
        assert abs(float(read_frame(path).mean()) - 50) < 3

    def test_masks_and_pictures_of_one_name_are_kept_apart(self, sink: Sink, tmp_path: Path) -> None:
        with open_sink("shown/", CLASSES, RECORDED) as masks, open_sink("shown/*.png", CLASSES, RECORDED) as pictures:
            masks.write(result_of(0))
            with pytest.raises(UserError, match="was not written so by a run"):
                pictures.write(result_of(0))
        assert read_label(tmp_path / "shown" / "frame_000000.png").max() == 0
        sink.close()


class TestPicture(SinkContract):
    text = "overlay.png"
    holds = 1

    def test_it_holds_one_frame_only(self, sink: Sink) -> None:
        sink.write(result_of(0))
        with pytest.raises(UserError, match=r"a picture holds one frame.*\.mp4"):
            sink.write(result_of(1))


@pytest.mark.parametrize("text", ["out.webm", "out.mpeg", "out.txt", "masks.v2", "", "udp://host/x"])
def test_what_names_no_sink_is_told_what_works(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        open_sink(text, CLASSES, RECORDED)
    assert all(word in caught.value.remedy for word in ("none", "window", ".mp4", ".avi", ".mkv", "folder"))


def test_a_sink_where_nothing_can_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for text in ("out.mp4", "masks/"):
        with pytest.raises(UserError, match="could not be written"):
            open_sink(str(tmp_path / "file" / text) + "/" * text.endswith("/"), CLASSES, RECORDED)


def test_a_sink_that_would_overwrite_its_source_is_refused(tmp_path: Path, video: Path) -> None:
    with open_source(parse_source(str(video))) as source:
        for text in (str(video), f"{tmp_path}/../{tmp_path.name}/clip.mp4", str(tmp_path)):
            with pytest.raises(UserError, match="what the source reads"):
                open_sink(text, CLASSES, source)


def test_a_tee_gives_every_result_to_each_and_wants_what_any_wants() -> None:
    first, second = ListSink(), ListSink(wants_overlay=True, stop_at=2)
    with Tee([first, second]) as tee:
        assert tee.wants_overlay
        stopped = []
        for i in range(2):
            tee.write(result_of(i))
            stopped.append(tee.stopped)
    assert stopped == [False, True]
    assert len(first.results) == len(second.results) == 2
    assert first.closes == second.closes == 1


def test_a_tee_closes_all_though_one_cannot() -> None:
    class Broken(ListSink):
        def close(self) -> None:
            raise UserError("it", "cannot be closed", "try again")

    first, last = ListSink(), ListSink()
    with pytest.raises(UserError, match="cannot be closed"):
        Tee([first, Broken(), last]).close()
    assert first.closes == last.closes == 1


def test_of_several_sinks_none_stays_open_when_one_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="webm"):
        open_sinks([str(tmp_path / "a.mp4"), str(tmp_path / "b.webm")], CLASSES, RECORDED)
    assert list(tmp_path.iterdir()) == []


def test_several_sinks_are_written_together(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=1)
    with open_sinks([str(tmp_path / "a.mp4"), f"{tmp_path}/masks/"], CLASSES, RECORDED) as sink:
        for i in range(3):
            sink.write(result_of(i))
    assert len(frames_of(tmp_path / "a.mp4")) == 3
    assert len(list((tmp_path / "masks").iterdir())) == 3


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("shot.png", True),
        (" shot.JPG ", True),
        ("gst:jpegenc ! multifilesink location=out-%05d.jpg", False),
        ("frames.png/", False),
        ("out/*.jpg", False),
        ("rtsp://host/a.png", False),
        ("out.mp4", False),
        ("none", False),
    ],
)
def test_what_holds_one_frame_is_told_from_all_else(text: str, is_one: bool) -> None:
    assert is_picture(text) == is_one
