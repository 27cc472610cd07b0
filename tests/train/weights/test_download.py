"""Published weights by name: they come once, whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from file_server import Served

from dlv3deploy.core.cache_folder import cache_folder
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.train.weights import download
from dlv3deploy.train.weights.download import fetch, weights_file
from dlv3deploy.train.weights.published import PUBLISHED, published_as, published_called

CONTENT = np.random.default_rng(0).bytes(3 * download.BLOCK_BYTES + 17)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WEIGHTS = replace(PUBLISHED["resnet18"], file="resnet18-small.pth", sha256=SHA256)


@pytest.fixture(autouse=True)
def has_content(server: Served) -> None:
    server.files[f"/models/{WEIGHTS.file}"] = CONTENT


def cached() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache_folder().glob("**/*")}


def refusal(kind: type[Exception] = UserError) -> str:
    with pytest.raises(kind) as raised:
        fetch(WEIGHTS)
    line = str(raised.value)
    assert "\n" not in line
    assert f"fetch {WEIGHTS.url} elsewhere and put it into {cache_folder()}, or give the path of the file" in line
    return line


def test_a_download_is_kept_and_not_repeated(server: Served) -> None:
    path = fetch(WEIGHTS)
    assert path == cache_folder() / WEIGHTS.file
    assert cached() == {WEIGHTS.file: CONTENT}
    assert fetch(WEIGHTS) == path
    assert len(server.requests) == 1


def test_a_cached_file_needs_no_network(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch(WEIGHTS)
    monkeypatch.setattr(socket, "socket", None)
    assert fetch(WEIGHTS) == path


def test_a_prefix_of_the_hash_is_enough(server: Served) -> None:
    assert fetch(replace(WEIGHTS, sha256=SHA256[:8])).read_bytes() == CONTENT


def test_a_length_need_not_be_announced(server: Served) -> None:
    server.announces = False
    assert fetch(WEIGHTS).read_bytes() == CONTENT


def test_a_redirect_is_followed(server: Served) -> None:
    server.files = {"/elsewhere/file": CONTENT}
    server.moved[f"/models/{WEIGHTS.file}"] = f"{server.url}/elsewhere/file"
    assert fetch(WEIGHTS).read_bytes() == CONTENT
    assert server.requests == [f"/models/{WEIGHTS.file}", "/elsewhere/file"]


def test_a_file_of_another_hash_is_not_kept(server: Served) -> None:
    other = b"something else"
    server.files[f"/models/{WEIGHTS.file}"] = other
    line = refusal(CheckFailed)
    assert hashlib.sha256(other).hexdigest() in line and SHA256 in line
    assert cached() == {}


def test_a_damaged_file_in_the_cache_is_replaced_once_a_good_one_is_there(
    server: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = cache_folder() / WEIGHTS.file
    damaged.parent.mkdir()
    damaged.write_bytes(CONTENT[:-1])
    server.cut_at = 100
    refusal()
    assert cached() == {WEIGHTS.file: CONTENT[:-1]}
    server.cut_at = None
    assert fetch(WEIGHTS).read_bytes() == CONTENT
    assert "is not what was published as resnet18; fetching it again" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0, 1, download.BLOCK_BYTES, len(CONTENT) - 1])
def test_a_body_cut_short_is_not_kept(server: Served, kept: int) -> None:
    server.cut_at = kept
    assert f"the connection ended after {kept} of {len(CONTENT)} bytes" in refusal()
    assert cached() == {}


def test_a_body_cut_short_without_a_length_is_found_by_its_hash(server: Served) -> None:
    server.announces, server.cut_at = False, 1000
    assert "its sha256 is" in refusal(CheckFailed)
    assert cached() == {}


def test_a_file_that_the_server_has_not(server: Served) -> None:
    server.files.clear()
    assert "the server answered 404" in refusal()
    assert cached() == {}


@pytest.mark.parametrize("sent", [0, 1000])
def test_a_server_that_falls_silent(server: Served, monkeypatch: pytest.MonkeyPatch, sent: int) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    server.stalls_at = sent
    assert "nothing came for 0.2 s" in refusal()
    assert cached() == {}


def test_a_server_that_accepts_and_never_answers(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("DLV3DEPLOY_WEIGHTS_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "nothing came for 0.2 s" in refusal()


def test_a_server_that_is_not_there(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("DLV3DEPLOY_WEIGHTS_URL", f"http://127.0.0.1:{port}")
    assert "could not be fetched" in refusal()


@pytest.mark.parametrize("url", ["nonsense", "gopher://host/models", "http://", "http://[::1", "http://host:port/x"])
def test_a_mirror_that_is_no_address(server: Served, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DLV3DEPLOY_WEIGHTS_URL", url)
    assert refusal().startswith(url.rstrip("/"))
    assert cached() == {}


def test_an_answer_that_is_no_http(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def answer() -> None:
            connection, _ = odd.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setenv("DLV3DEPLOY_WEIGHTS_URL", f"http://127.0.0.1:{odd.getsockname()[1]}")
        assert "could not be fetched" in refusal()
        thread.join()


def test_an_interrupted_download_leaves_nothing(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def update(self, block: bytes) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(download, "sha256", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(WEIGHTS)
    assert cached() == {}


def test_a_cache_that_cannot_be_written(server: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("DLV3DEPLOY_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="could not be written"):
        fetch(WEIGHTS)


def test_what_is_meant_is_a_file_or_a_name(server: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(PUBLISHED, "resnet18", WEIGHTS)
    monkeypatch.chdir(tmp_path)
    assert weights_file("resnet18").read_bytes() == CONTENT
    Path("resnet50").mkdir()  # a folder of the same name is not meant
    with pytest.raises(UserError, match="404"):
        weights_file("resnet50")
    Path("resnet34").write_bytes(b"mine")
    assert weights_file("resnet34") == Path("resnet34")
    assert weights_file("absent.pth") == Path("absent.pth")  # whose reader says that it does not exist
    with pytest.raises(UserError, match="neither a file nor the name of published weights"):
        weights_file("resnet152")


def test_every_published_name_is_well_formed() -> None:
    for name, published in PUBLISHED.items():
        assert published.name == name
        assert re.fullmatch(r"[0-9a-f]{8,64}", published.sha256)
        assert re.fullmatch(rf".*-{published.sha256[:8]}\.pth", published.file)  # the publisher's own convention
        assert published.url.startswith("https://")
        assert published_as(published.sha256.ljust(64, "0")) == published
        assert published_called(name) == published
        assert 4 * published.parameters / 1e6 == pytest.approx(published.megabytes, rel=0.02)
    assert published_as("0" * 64) is None
