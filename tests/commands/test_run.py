"""`run` with a page in place of a screen, and what it leaves behind when one of its outputs is refused."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_deeplab, tiny_spec
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.core.graph import embed_spec
from dlv3deploy.core.images import read_frame, write_frame

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    write_frame(tmp_path / "shot.png", np.full((48, 64, 3), 90, np.uint8))
    return tmp_path / "shot.png"


def run(work: Path, picture: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["run", "--workspace", str(work), "--source", str(picture), *arguments])


def test_a_page_is_enough(work: Path, picture: Path) -> None:
    before = set(work.iterdir())
    done = run(work, picture, "--serve", "0", "--opacity", "0.3", "--json")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"^live page: http://127\.0\.0\.1:\d+/$", done.stderr, re.MULTILINE)
    facts = json.loads(done.stdout)
    assert (facts["frames"], facts["sinks"], facts["page"]) == (1, [], "0")
    assert set(work.iterdir()) == before


def test_a_page_and_a_file(work: Path, picture: Path, tmp_path: Path) -> None:
    done = run(work, picture, "--serve", "localhost:0", "--sink", str(tmp_path / "out.mp4"))
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "out.mp4").stat().st_size > 0


def test_a_page_that_cannot_be_served_leaves_no_file_behind(work: Path, picture: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for serve, rule in ((str(taken.getsockname()[1]), "cannot be served"), ("here", "no PORT or HOST:PORT")):
            done = run(work, picture, "--serve", serve, "--sink", str(tmp_path / "out.mp4"))
            assert done.exit_code == 1 and rule in done.stderr
    assert not list(tmp_path.glob("out*"))


def test_steadiness_is_checked_and_said(work: Path, picture: Path) -> None:
    done = run(work, picture, "--steady", "0.5", "--sink", "none", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["steady"] == 0.5
    assert "from 0 to below 1" in run(work, picture, "--steady", "1", "--sink", "none").stderr


def test_stats_are_a_table_of_every_stage(work: Path, picture: Path) -> None:
    done = run(work, picture, "--stats", "--sink", "none")
    assert done.exit_code == 0
    for stage in ("preprocessing", "inference", "postprocessing"):
        assert re.search(rf"{stage}\s+.\s+\d+\.\d\s+.\s+\d+\.\d", done.stdout), done.stdout
    assert "glass" not in done.stdout


def test_several_sources_have_sinks_and_figures_of_their_own(work: Path, picture: Path, tmp_path: Path) -> None:
    write_frame(tmp_path / "two.png", np.full((40, 50, 3), 200, np.uint8))
    sinks = ("--sink", str(tmp_path / "out-{stream}.png"), "--sink", "none")
    done = run(work, picture, "--source", str(tmp_path / "two.png"), *sinks, "--json")
    assert done.exit_code == 0, done.stderr
    streams = json.loads(done.stdout)["streams"]
    assert [(each["source"], each["frames"]) for each in streams] == [(str(picture), 1), (str(tmp_path / "two.png"), 1)]
    assert [read_frame(tmp_path / f"out-{n}.png").shape for n in range(2)] == [(48, 64, 3), (40, 50, 3)]
    assert streams[1]["sinks"] == [str(tmp_path / "out-1.png"), "none"]


def test_several_sources_have_defaults_of_their_own(work: Path, picture: Path, tmp_path: Path) -> None:
    write_frame(tmp_path / "two.png", np.full((40, 50, 3), 200, np.uint8))
    assert run(work, picture, "--source", str(tmp_path / "two.png")).exit_code == 0
    assert (work / "shot.labelled.png").is_file() and (work / "two.labelled.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--sink", "out.mp4"), "is one name for 2 sources; put their number into it: --sink out-{stream}.mp4"),
        (("--sink", "all.jsonl"), "put their number into it: --sink all-{stream}.jsonl"),
        ((), "would be labelled in one file"),
        (("--steady", "0.5", "--sink", "none"), "looks back in one of them"),
    ],
)
def test_what_is_of_one_source_is_refused_for_several(work: Path, picture: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(work, picture, "--source", str(picture), *arguments)
    assert done.exit_code == 1 and said in done.stderr, done.stderr


def test_live_ones_among_several_have_windows_by_default(work: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = run(work, picture, "--source", "test://1?live=yes", "--source", "test://1?live=yes")
    assert done.exit_code == 1 and "--sink window: this session has no screen" in done.stderr


def test_a_page_shows_several(work: Path, picture: Path) -> None:
    done = run(work, picture, "--source", "test://1?seconds=0.3&size=48x64", "--serve", "0")
    assert done.exit_code == 0 and len(re.findall("live page: http://127", done.stderr)) == 1
    assert not list(work.glob("*.labelled.*")), "a page takes the place of the files that a run writes by default"


def test_what_one_source_reads_is_no_sink_of_another(work: Path, picture: Path, tmp_path: Path) -> None:
    write_frame(tmp_path / "out-0.png", np.full((40, 50, 3), 200, np.uint8))
    before = (tmp_path / "out-0.png").read_bytes()
    done = run(work, picture, "--source", str(tmp_path / "out-0.png"), "--sink", str(tmp_path / "out-{stream}.png"))
    assert done.exit_code == 1 and "would be overwritten" in done.stderr
    assert (tmp_path / "out-0.png").read_bytes() == before


def test_the_number_of_a_single_source_is_0(work: Path, picture: Path, tmp_path: Path) -> None:
    assert run(work, picture, "--sink", str(tmp_path / "out-{stream}.png")).exit_code == 0
    assert (tmp_path / "out-0.png").is_file()


def test_a_picture_is_not_replaced_where_it_cannot_hold_what_comes(work: Path, tmp_path: Path) -> None:
    kept = tmp_path / "keep.png"
    write_frame(kept, np.full((40, 50, 3), 200, np.uint8))
    before = kept.read_bytes()
    done = run(work, "test://1?seconds=1&size=48x64", "--sink", str(kept))
    assert done.exit_code == 1 and "a picture holds one frame, and the source has more" in done.stderr
    assert kept.read_bytes() == before
    assert run(work, "test://1?seconds=1&size=48x64", "--sink", str(kept), "--max-frames", "1").exit_code == 0
    assert kept.read_bytes() != before


def test_a_sink_that_is_given_twice_and_a_file_that_is_a_folder_are_refused(work: Path, picture: Path, tmp_path: Path) -> None:
    done = run(work, picture, "--sink", "a.mp4", "--sink", "a.mp4")
    assert done.exit_code == 1 and "--sink a.mp4: is given twice" in done.stderr
    (tmp_path / "is.mp4").mkdir()
    done = run(work, picture, "--sink", str(tmp_path / "is.mp4"))
    assert done.exit_code == 1 and "is a folder; end it in / for masks in it" in done.stderr
    assert run(work, picture, "--sink", f"{tmp_path / 'is.mp4'}/").exit_code == 0


def test_true_masks_of_other_classes_score_nothing_and_that_is_said(work: Path, tmp_path: Path) -> None:
    asked = ("--sink", "none", "--max-frames", "1")
    assert "not scored" not in run(work, "test://1?size=48x64", *asked).stderr
    other = tmp_path / "other.onnx"
    model = tiny_deeplab()
    classes = tiny_spec().classes
    embed_spec(model, replace(tiny_spec(), classes=replace(classes, names=tuple(f"other {name}" for name in classes.names))))
    other.write_bytes(model.SerializeToString())
    done = CliRunner().invoke(app, ["run", str(other), "--source", "test://1?size=48x64", *asked])
    assert done.exit_code == 0 and "not scored, for the model's classes are not those of its true masks" in done.stderr
