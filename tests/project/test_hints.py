"""Commands that messages name: they stand for the workspace in use, which only `Workspace.command` can know."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import command_line
import pytest

import dlv3deploy
from dlv3deploy.video.folders import MADE_BY

PACKAGE = Path(dlv3deploy.__file__).parent
FOLDERS = (PACKAGE, *(path for path in PACKAGE.iterdir() if path.is_symlink()))  # of a checkout, which rglob does not follow
MODULES = sorted({p for f in FOLDERS for p in f.rglob("*.py")} - {PACKAGE / "core" / "workspace.py"})
FREE = r"--list|networks --markdown"  # of what is the same in every workspace


def texts_of(module: Path) -> Iterator[ast.Constant]:
    """The texts in a module's code, docstrings left out."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    plain = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in plain:
            yield node


def commands_with_a_workspace() -> list[str]:
    taking = {name for name, command in command_line.commands().items() if any("--workspace" in p.opts for p in command.params)}
    return sorted(taking - {"demo", "doctor"})  # which read no workspace


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_message_spells_out_a_command_that_takes_a_workspace(module: Path) -> None:
    """`place.command("export")` instead of `dlv3deploy export`, which would be another workspace's."""
    names = "|".join(commands_with_a_workspace())
    spelt = re.compile(rf"dlv3deploy (?:{names})\b(?! (?:{FREE}))")
    found = [f"line {t.lineno}: {t.value}" for t in texts_of(module) if t.value != MADE_BY and spelt.search(t.value)]
    assert not found
