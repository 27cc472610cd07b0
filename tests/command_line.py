"""The program's commands as Typer knows them: what options a command has, and what it says of them."""

from __future__ import annotations

from functools import cache
from typing import Any

from typer.main import get_command

from dlv3deploy.cli import COMMANDS, app


@cache
def commands() -> dict[str, Any]:
    """Every command by its name."""
    program: Any = get_command(app)
    return {name: program.get_command(None, name) for name in COMMANDS}


def options(command: str) -> set[str]:
    """Every spelling of every option of `command`, with its dashes."""
    return {text for parameter in commands()[command].params for text in (*parameter.opts, *parameter.secondary_opts)}
