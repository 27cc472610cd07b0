"""The program starts fast, imports nothing heavy on the way, and every module stands on its own."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys

import pytest

import dlv3deploy
from dlv3deploy.cli import COMMANDS

HEAVY = ("torch", "onnx", "onnxscript", "onnxruntime", "cv2", "tensorrt_rtx", "matplotlib", "scipy", "PIL", "numpy")
SMALLEST = """
import typer
app = typer.Typer()
@app.callback()
def program(version: bool = False) -> None: "A program."
@app.command()
def one(number: int = 1) -> None: "One."
@app.command()
def two(number: int = 2) -> None: "Two."
app()
"""
FACTOR = 1.6
ROUNDS = 8
MODULES = sorted(m.name for m in pkgutil.walk_packages(dlv3deploy.__path__, "dlv3deploy.") if not m.name.endswith("__main__"))
NEEDS_TORCH = "dlv3deploy.train."


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_the_program_imports_nothing_heavy() -> None:
    program = "import importlib, sys\nfrom dlv3deploy.cli import COMMANDS\n"
    program += "for name in COMMANDS: importlib.import_module('dlv3deploy.commands.' + name.replace('-', '_'))\n"
    loaded = python("-c", program + "print(*sys.modules)").stdout.split()
    assert {"dlv3deploy.cli", "dlv3deploy.commands.build_engine"} <= set(loaded)
    assert not set(HEAVY) & set(loaded)


def test_everything_imports_where_only_the_base_is_loaded() -> None:
    """Heavy libraries are hidden: importing any module outside train/ must not ask for them."""
    hidden = [
        "torch",
        "lightning_fabric",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "cv2",
        "tensorrt",
        "tensorrt_rtx",
        "matplotlib",
        "scipy",
        "PIL",
    ]
    program = (
        f"import sys, importlib\nfor name in {hidden}: sys.modules[name] = None\n"
        f"for name in {[m for m in MODULES if not m.startswith(NEEDS_TORCH)]}: importlib.import_module(name)\nprint('done')"
    )
    done = python("-c", program)
    assert done.stdout.strip() == "done", done.stderr


def test_train_imports_with_torch() -> None:
    pytest.importorskip("torch")
    names = [m for m in MODULES if m.startswith(NEEDS_TORCH)]
    assert names
    done = python("-c", f"import importlib\nfor name in {names}: importlib.import_module(name)")
    assert done.returncode == 0, done.stderr


def test_help_on_a_command_imports_no_other_command() -> None:
    program = "import sys\nfrom dlv3deploy.cli import app\n"
    program += "try: app(['run', '--help'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    loaded = {name for name in python("-c", program).stdout.split() if name.startswith("dlv3deploy.commands.")}
    modules = {"dlv3deploy.commands." + name.replace("-", "_") for name in COMMANDS}
    assert loaded & modules == {"dlv3deploy.commands.run"}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_takes_little_more_than_typers_own(command: str) -> None:
    """In CPU time, against the smallest program of two commands on this machine: processors and Typer's own weight differ.

    The least of several, taken in turns, because caches may be cold and clocks change.
    """
    ours, smallest = [], []
    for _ in range(ROUNDS):
        smallest.append(cpu_seconds("-c", SMALLEST, "one", "--help"))
        ours.append(cpu_seconds("-m", "dlv3deploy", *([command] if command else []), "--help"))
        if min(ours) < FACTOR * min(smallest):
            return
    pytest.fail(f"{min(ours):.2f} s, and {min(smallest):.2f} s for a program of two empty commands")


def cpu_seconds(*arguments: str) -> float:
    before = os.times()
    assert "Usage" in python(*arguments).stdout
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_a_command_that_does_not_exist_is_bad_usage() -> None:
    done = python("-m", "dlv3deploy", "evalute")
    assert done.returncode == 2
    assert "evalute" in done.stderr and "Did you mean 'evaluate'?" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("paper", "table3", "--json"), ("doctor", "--json")])
def test_a_reader_that_has_seen_enough_is_no_error(arguments: tuple[str, ...]) -> None:
    """A long output, and one that is written at the very end."""
    program = [sys.executable, "-m", "dlv3deploy", *arguments]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # long before anything is written
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_the_version_is_printed() -> None:
    assert python("-m", "dlv3deploy", "--version").stdout.strip() == f"dlv3deploy {dlv3deploy.__version__}"
