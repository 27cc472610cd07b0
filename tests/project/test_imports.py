"""The program starts fast, imports nothing heavy on the way, and every module stands on its own."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys

import pytest

import dlv3deploy

HEAVY = ("torch", "onnx", "onnxscript", "onnxruntime", "cv2", "tensorrt_rtx", "matplotlib", "scipy", "PIL", "numpy")
COMMANDS = ("train", "import-weights", "export", "build-engine", "run", "evaluate", "inspect", "doctor", "paper", "demo")
CPU_LIMIT_S = 0.5
MODULES = sorted(m.name for m in pkgutil.walk_packages(dlv3deploy.__path__, "dlv3deploy.") if not m.name.endswith("__main__"))
NEEDS_TORCH = "dlv3deploy.train."


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_the_program_imports_nothing_heavy() -> None:
    loaded = python("-c", "import dlv3deploy.cli, sys; print(*sys.modules)").stdout.split()
    assert "dlv3deploy.cli" in loaded
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


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_takes_under_half_a_second_of_cpu(command: str) -> None:
    """In CPU time, which other programs do not add to; the best of five, because caches may be cold."""
    best = CPU_LIMIT_S
    for _ in range(5):
        before = os.times()
        done = python("-m", "dlv3deploy", *([command] if command else []), "--help")
        after = os.times()
        assert "Usage" in done.stdout
        best = min(best, after.children_user + after.children_system - before.children_user - before.children_system)
        if best < CPU_LIMIT_S:
            return
    pytest.fail(f"{best:.2f} s")


def test_a_command_that_does_not_exist_is_bad_usage() -> None:
    done = python("-m", "dlv3deploy", "frobnicate")
    assert done.returncode == 2
    assert "frobnicate" in done.stderr
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
