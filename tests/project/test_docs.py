"""The pages name what exists: commands with their options, files, and the outputs that they quote."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import command_line
import pytest

from dlv3deploy.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = [*sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]), ROOT / "benchmarks" / "README.md"]
OF_OTHERS = {
    "--extra-index-url",
    "--nnodes",
    "--nproc-per-node",
    "--rdzv-endpoint",
    "--onnx",
    "--calib",
    "--help",
}  # pip's, torchrun's, trtexec's, all commands'


def typed_commands(text: str) -> Iterator[list[str]]:
    """The words behind `dlv3deploy` of every command line in a page's blocks, and of those in running text."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:torchrun [^`]*-m )?dlv3deploy [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in lines:
        words = shlex.split(line, comments=True)
        if "dlv3deploy" in words:
            yield words[words.index("dlv3deploy") + 1 :]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_shows_exists_with_its_options(page: Path) -> None:
    for name, *words in typed_commands(page.read_text(encoding="utf-8")):
        assert name in COMMANDS, name
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= command_line.options(name), (name, words)


@pytest.mark.parametrize("page", PAGES[:-1], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    """Of all pages but the last, whose scripts have options of their own."""
    known = set().union(*map(command_line.options, COMMANDS)) | OF_OTHERS
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]+", page.read_text(encoding="utf-8"))) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_that_a_page_links_to_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_commands_of_a_page_are_found() -> None:
    """The test of the tests above: continued lines, comments, torchrun, running text."""
    block = "```sh\ndlv3deploy train DATA \\\n    --steps 3  # a comment\ntorchrun -m dlv3deploy train\n```"
    page = f"`dlv3deploy run --json`\n{block}\n"
    assert list(typed_commands(page)) == [["train", "DATA", "--steps", "3"], ["train"], ["run", "--json"]]
