"""The program's commands: running them inside this process, and what options they have."""

from __future__ import annotations

from functools import cache
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner, Result

from dlv3deploy.cli import COMMANDS, app


@cache
def commands() -> dict[str, Any]:
    """Every command by its name."""
    program: Any = get_command(app)
    return {name: program.get_command(None, name) for name in COMMANDS}


def options(command: str) -> set[str]:
    """Every spelling of every option of `command`, with its dashes."""
    return {text for parameter in commands()[command].params for text in (*parameter.opts, *parameter.secondary_opts)}


def run(*words: object) -> Result:
    """What `dlv3deploy` with these words does."""
    return CliRunner().invoke(app, [str(word) for word in words])


def succeed(*words: object) -> Result:
    done = run(*words)
    assert done.exit_code == 0, done.stderr
    return done
