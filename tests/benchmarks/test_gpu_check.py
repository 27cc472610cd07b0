"""gpu_check.sh refuses a machine without a GPU, and its page names every part that failed or was left out.

`nvidia-smi` and the interpreter are stand-ins, so nothing is measured here, whatever machine this is.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NO_GPU = "exit 9"
ONE_GPU = 'echo "NVIDIA Test 4000, 999.1, 8192 MiB"'
FAILS = """
case "$*" in
    *"import torch"*) echo "2.6.0 with CUDA 12.4 finds 1 GPUs" ;;
    *) echo "nothing works | here" >&2; exit 7 ;;
esac
"""
PASSES = """
case "$*" in
    *"import torch"*) echo "2.6.0 with CUDA 12.4 finds 1 GPUs" ;;
    *pytest*) echo "3 passed, 1 skipped in 2.0s" ;;
    *throughput.py*) echo "ours / plain: a ratio" ;;
    *latency.py*)
        echo "wrote the table" >&2
        while [ "$1" != --to ]; do shift; done
        printf '# Latency\\n\\nits rows\\n' >"$2" ;;
    *camvid.py*)
        echo "wrote it; 12 of 12 rows measured" >&2
        while [ "$1" != --to ]; do shift; done
        printf '# CamVid\\n\\nits table\\n' >"$2" ;;
esac
"""


def gpu_check(folder: Path, nvidia_smi: str, python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    for name, text in (("nvidia-smi", nvidia_smi), ("python", python)):
        program = folder / name
        program.write_text(f"#!/usr/bin/env bash\n{text}\n", encoding="utf-8")
        program.chmod(0o755)
    places = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": str(folder / "python"), "RESULTS": str(folder / "results")}
    kept = {name: value for name, value in os.environ.items() if name not in ("CAMVID", "WEIGHTS")}
    command = ["benchmarks/gpu_check.sh", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**kept, **places}, capture_output=True, text=True, check=False, timeout=60)


def page_of(folder: Path) -> str:
    (page,) = (folder / "results").iterdir()
    assert page.name.startswith("gpu-NVIDIA-Test-4000-")
    return page.read_text(encoding="utf-8")


def rows_of(page: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line.startswith("| ")][1:]


def test_without_a_gpu_it_ends_with_one_line_and_writes_nothing(tmp_path: Path) -> None:
    done = gpu_check(tmp_path, NO_GPU, PASSES)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no NVIDIA GPU: nvidia-smi is missing or finds none; run this on a machine that has one\n"
    assert not (tmp_path / "results").exists()


def test_parts_that_fail_or_are_left_out_are_named_in_the_table(tmp_path: Path) -> None:
    done = gpu_check(tmp_path, ONE_GPU, FAILS)
    assert done.returncode == 1, done.stderr
    assert rows_of(page_of(tmp_path)) == [
        ["tests marked gpu", "FAILED, exit code 7", "nothing works \\| here"],
        ["training throughput, resnet50", "FAILED, exit code 7", "nothing works \\| here"],
        ["training throughput, resnet101", "FAILED, exit code 7", "nothing works \\| here"],
        ["latency of engines", "FAILED, exit code 7", "nothing works \\| here"],
        ["CamVid", "left out", "needs CAMVID and WEIGHTS, see the top of benchmarks/gpu_check.sh"],
    ]


def test_a_page_has_the_machine_every_part_and_its_output_below(tmp_path: Path) -> None:
    done = gpu_check(tmp_path, ONE_GPU, PASSES, "/some/camvid", "/some/weights.safetensors")
    assert done.returncode == 0, done.stderr
    page = page_of(tmp_path)
    assert "- GPU, driver, memory: NVIDIA Test 4000, 999.1, 8192 MiB\n- torch 2.6.0 with CUDA 12.4 finds 1 GPUs\n" in page
    assert rows_of(page) == [
        ["tests marked gpu", "passed", "3 passed, 1 skipped in 2.0s"],
        ["training throughput, resnet50", "passed", "ours / plain: a ratio"],
        ["training throughput, resnet101", "passed", "ours / plain: a ratio"],
        ["latency of engines", "passed", "wrote the table"],
        ["CamVid, mobilenet_v2,resnet50,resnet101", "passed", "wrote it; 12 of 12 rows measured"],
    ]
    for section in (
        "## Tests\n",
        "## Training throughput, resnet50\n",
        "## Training throughput, resnet101\n",
        "## Latency of engines\n\nits rows",
        "## CamVid\n\nits table",
    ):
        assert section in page
    assert str(tmp_path) not in page


def test_skipped_tests_alone_are_no_pass(tmp_path: Path) -> None:
    done = gpu_check(tmp_path, ONE_GPU, PASSES.replace("3 passed, 1 skipped", "4 skipped"))
    assert done.returncode == 1
    assert rows_of(page_of(tmp_path))[0] == ["tests marked gpu", "NONE RAN", "4 skipped in 2.0s"]
