"""The `dlv3deploy` program: its commands, and how errors become one line and an exit code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from dlv3deploy import __version__
from dlv3deploy.core.errors import Dlv3Error
from dlv3deploy.core.interrupts import termination_as_interrupt

COMMANDS = (
    *("train", "import-weights", "export", "calibrate", "build-engine", "run"),
    *("evaluate", "benchmark", "inspect", "cache", "doctor", "paper", "demo"),
)
INTERRUPTED = 130


class Commands(TyperGroup):
    """The commands, each imported when it is asked for: help on one does not wait for the others."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (as Typer calls it)
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if not (args and args[0] in COMMANDS):
            self.commands = {name: self.get_command(ctx, name) for name in COMMANDS}  # to suggest some of them
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 (as Typer calls it)
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
        alone.command(cmd_name)(_one_line_errors(getattr(import_module(f"dlv3deploy.commands.{name}"), name)))
        return get_command(alone)


app = typer.Typer(
    name="dlv3deploy",
    cls=Commands,
    help="DeepLabv3 from training to a camera on an edge GPU, every step checked against the one before it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 the request cannot be served, 2 bad usage, 3 a check failed, 130 interrupted.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dlv3deploy {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """DeepLabv3 from training to a camera on an edge GPU, every step checked against the one before it."""


def _one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, whose foreseen errors end the program with one line on stderr and their exit code."""

    @functools.wraps(command)
    def guarded(*arguments: Any, **options: Any) -> None:
        try:
            with termination_as_interrupt():
                command(*arguments, **options)
            sys.stdout.flush()
        except Dlv3Error as error:
            raise _exit(f"error: {error}", error.exit_code) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads_on():
                raise typer.Exit(1) from error
            raise _exit(f"error: {error.filename or 'the system'}: {error.strerror or error}", 1) from error
        except ImportError as error:
            raise _exit(f"error: {_missing(error)}", 1) from error
        except MemoryError as error:
            raise _exit(f"error: {TOO_LARGE}", 1) from error
        except RuntimeError as error:
            if (message := _of_torch(error)) is None:
                raise
            raise _exit(f"error: {message}", 1) from error
        except KeyboardInterrupt as error:
            raise _exit("interrupted", INTERRUPTED) from error

    return guarded


# Which extra brings a library; anything else that cannot be imported is a broken installation.
EXTRAS = {
    "torch": "train",
    "lightning_fabric": "train",
    "matplotlib": "train",
    "scipy": "train",
    "onnxruntime": "onnxruntime",
    "onnxconverter_common": "fp16",
    "cv2": "video",
    "cuda": "cuda",
}

TOO_LARGE = (
    "this needs more memory than there is; use a smaller --size or --batch, in training a smaller --crop or --batch-size, or "
    "--accumulate"
)
COMPILERS = ("torch._dynamo.", "torch._inductor.", "triton.")


def _of_torch(error: RuntimeError) -> str | None:
    """What a foreseen error of torch means; told by its name, as torch need not be there."""
    if type(error).__name__ == "OutOfMemoryError":
        return TOO_LARGE
    if f"{type(error).__module__}.".startswith(COMPILERS):
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return f"the network cannot be compiled here ({said}); leave --compile out"
    return None


def _missing(error: ImportError) -> str:
    name = (error.name or "").split(".")[0]
    if isinstance(error, ModuleNotFoundError) and name in EXTRAS:
        return f"this command needs {name}, which is not installed; install dlv3deploy[{EXTRAS[name]}]"
    return f"{error}; `dlv3deploy doctor` says what is missing"


def _nobody_reads_on() -> bool:
    """Whether the reader of stdout, such as `head`, has gone; then nothing is left for the interpreter to write at its end."""
    import select

    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)  # errors alone, which are always told
    if not watch.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _exit(message: str, code: int) -> typer.Exit:
    print(message, file=sys.stderr)
    return typer.Exit(code)


def main() -> None:
    """Run the program and exit: 0 done, 1 user error, 2 bad usage, 3 a check failed, 130 on Ctrl-C."""
    app()
