"""Writes happen whole or not at all, and leave nothing behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import read_json, replacing, require_file, sha256_of, write_bytes, write_json, write_text

HERE = Path(__file__).parent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "model.png"
    path.write_bytes(b"old")
    return path


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_full_disk_is_named_the_old_file_stays_and_nothing_is_left_beside_it(old: Path) -> None:
    pytest.importorskip("cv2")
    command = [sys.executable, str(HERE / "write_until_full.py"), str(old)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    messages = json.loads(done.stdout)
    assert set(messages) == {"bytes", "text", "mask", "frame", "safetensors", "hidden"}
    for message in messages.values():
        assert message.startswith(f"{old}: could not be written, the disk or quota is full (")
        assert "the file that was there is unchanged" in message
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["model.png"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_block_that_ends_early_leaves_the_old_file_and_no_other(old: Path, failure: type[BaseException]) -> None:
    def write_half() -> None:
        with replacing(old) as partial:
            partial.write_bytes(b"half of the new")
            raise failure

    with pytest.raises(failure):
        write_half()
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["model.png"]


def test_the_old_file_is_there_until_the_block_has_ended(old: Path) -> None:
    with replacing(old) as partial:
        partial.write_bytes(b"new")
        assert old.read_bytes() == b"old"
        assert partial.suffix == ".png"
        assert partial.parent == old.parent
        assert partial.name.startswith(".")
    assert old.read_bytes() == b"new"
    assert names(old.parent) == ["model.png"]


def test_two_writers_of_one_file_do_not_meet(old: Path) -> None:
    with replacing(old) as first, replacing(old) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert old.read_bytes() == b"first", "the one that ended last"
    assert names(old.parent) == ["model.png"]


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "grün")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "grün".encode()


@pytest.mark.usefixtures("umask")
def test_a_new_files_permissions_follow_the_umask(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new", b"1")
    assert permissions(tmp_path / "new") == 0o640


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_replaced_files_permissions_stay(old: Path, mode: int) -> None:
    old.chmod(mode)
    write_bytes(old, b"new")
    assert permissions(old) == mode


def test_a_link_stays_a_link_and_its_target_is_replaced(old: Path) -> None:
    link = old.parent / "elsewhere" / "link.png"
    link.parent.mkdir()
    link.symlink_to("../model.png")
    write_bytes(link, b"new")
    assert link.is_symlink()
    assert old.read_bytes() == b"new"
    assert names(link.parent) == ["link.png"]


def test_a_link_to_a_file_that_is_not_there_yet_makes_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("new")
    write_bytes(tmp_path / "link", b"1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new").read_bytes() == b"1"


def test_a_folder_of_that_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    entered = False
    with pytest.raises(UserError, match="is a folder"), replacing(tmp_path / "model.onnx"):
        entered = True
    assert not entered
    assert names(tmp_path) == ["model.onnx"]


def test_a_device_or_pipe_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="no plain file"):
        write_bytes(pipe, b"1")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize(
    "path",
    [
        Path("/proc/dlv3deploy/model.onnx"),  # not even root may make it
        Path("/dev/null/model.onnx"),
        Path("/tmp") / ("n" * 300),
    ],
)
def test_a_place_that_cannot_be_written_is_a_user_error(path: Path) -> None:
    with pytest.raises(UserError, match="could not be written .*nothing was written"):
        write_bytes(path, b"1")


def test_json_that_cannot_be_read_is_a_user_error_naming_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"größe": [1, 2.5, None]})
    assert read_json(path) == {"größe": [1, 2.5, None]}
    whole = path.read_bytes()
    for damaged in (b"", whole[:-5], b"\xff\xfe\x00", b"[" * 100_000, b"1" * 5000):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.json: is not readable JSON"):
            read_json(path)
    path.unlink()
    with pytest.raises(UserError, match=r"a\.json"):
        read_json(path)


def test_a_missing_empty_or_wrong_kind_of_file_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, rule in (("none", "does not exist"), ("empty", "is empty"), (".", "is a folder")):
        with pytest.raises(UserError, match=f"{rule}.*; make it so"):
            require_file(tmp_path / name, "make it so")
    (tmp_path / "full").write_bytes(b"1")
    assert require_file(tmp_path / "full", "") == tmp_path / "full"


def test_a_hash_is_that_of_all_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    path.write_bytes(b"a" * 1_000_000 * 3)
    one = sha256_of(path)
    path.write_bytes(b"a" * (3_000_000 - 1) + b"b")
    assert sha256_of(path) != one


@pytest.mark.usefixtures("umask")
def test_a_writer_that_puts_a_file_of_its_own_there_leaves_the_permissions(tmp_path: Path) -> None:
    """As safetensors does."""
    with replacing(tmp_path / "new") as partial:
        partial.unlink()
        partial.touch(0o600)
    assert permissions(tmp_path / "new") == 0o640
