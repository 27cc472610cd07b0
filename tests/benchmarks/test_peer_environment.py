"""Environments of peers, with an installer that is only played."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from peer_environment import PREPROCESSING, Environment, NotInstalled, Peers

PEER = Environment("some-peer", ("some-peer[onnx]",))


class Installer:
    """Stands for venv and pip: notes what it was asked for, and answers as `pip_says` when pip is to fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pip_says: str = "") -> None:
        self.calls, self.pip_says = list[list[str]](), pip_says
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, command: list[str], **_settings: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True, exist_ok=True)
        fails = "pip" in command and self.pip_says
        return subprocess.CompletedProcess(command, 1 if fails else 0, "1.2.3\n", self.pip_says)


def test_an_environment_is_set_up_once_and_then_only_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installer = Installer(monkeypatch)
    peers = Peers(tmp_path)
    assert peers.version(PEER) is None
    python = peers.python(PEER)
    assert python == tmp_path / "environments" / "some-peer" / "bin" / "python"
    assert [command[:3] for command in installer.calls][1] == [str(python), "-m", "pip"]
    assert installer.calls[1][-4:] == ["some-peer[onnx]", *PREPROCESSING]
    assert Peers(tmp_path).python(PEER) == python
    assert Peers(tmp_path).version(PEER) == "1.2.3"
    assert len(installer.calls) == 3


def test_no_index_is_named_and_none_gets_into_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installer = Installer(monkeypatch, "noise\nERROR: nothing at https://packages.example/simple/some-peer for this Python\n")
    with pytest.raises(NotInstalled, match="ERROR: nothing at the package index for this Python") as caught:
        Peers(tmp_path).python(PEER)
    assert "packages.example" not in str(caught.value)
    assert installer.calls[1][1:4] == ["-m", "pip", "install"]
    options = [word for word in installer.calls[1][4:] if word.startswith("-")]
    assert options == ["--quiet", "--disable-pip-version-check"]


def test_what_could_not_be_set_up_is_not_tried_again_by_the_same_program_and_is_by_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installer = Installer(monkeypatch, "no space left")
    peers = Peers(tmp_path)
    for _ in range(2):
        with pytest.raises(NotInstalled):
            peers.python(PEER)
    assert len(installer.calls) == 2
    installer.pip_says = ""
    assert Peers(tmp_path).python(PEER).name == "python"


def test_other_requirements_set_it_up_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installer = Installer(monkeypatch)
    Peers(tmp_path).python(PEER)
    Peers(tmp_path).python(Environment("some-peer", ("some-peer==2",)))
    assert len(installer.calls) == 6
