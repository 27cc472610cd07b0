"""How each method of the table makes its Q/DQ model: a command, run and measured by itself, and never run twice."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from calibration_reader import Job
from fact_cache import Fact, Key, remembered, source_hash
from machine import this_machine
from measured import Limits, last_words, run_measured
from peer_environment import MODELOPT, Peers, with_our_package
from quantization_cases import Case
from quantization_methods import Method

import dlv3deploy
from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.core.files import sha256_of

PROGRAM = (sys.executable, "-m", "dlv3deploy")
HERE = Path(__file__).parent
PACKAGE = HERE.parent / "dlv3deploy"


@dataclass(frozen=True)
class Making:
    """`command` writes the file `to`; `version` tells of whoever made it, source included where it is ours."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    to: Path
    version: str


@dataclass(frozen=True)
class Made:
    """A Q/DQ model, what it took and on which day; `end` is how its process ended, and without a model `reason` says more."""

    model: Path
    sha256: str
    end: str
    seconds: float
    peak_mb: int
    reason: str = ""
    day: str = ""


def making(method: Method, case: Case, folder: Path, peers: Peers) -> Making:
    """The command for `method`; `folder` holds what it reads and writes. Raises NotInstalled when a peer cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    to = folder / "int8.onnx"
    if method.maker == "ours":
        return Making(_our_command(method, case, folder, to), with_our_package(), to, _our_version())
    job = Job(
        str(case.model.resolve()),
        str(case.images.resolve()),
        case.spec.to_text(),
        case.input,
        str(to.resolve()),
        method.method,
        not method.per_tensor,
        method.float_bias,
        method.by_image,
    )
    job.write(folder / "job.json")
    reader = HERE / "calibration_reader.py"
    if method.maker == "ort":
        python, worker, made_by = sys.executable, HERE / "onnxruntime_worker.py", f"onnxruntime {version('onnxruntime')}"
    else:
        python, worker = str(peers.python(MODELOPT)), HERE / "modelopt_worker.py"
        made_by = f"nvidia-modelopt {peers.version(MODELOPT)}"
    command = (python, str(worker), str(folder / "job.json"))
    return Making(command, with_our_package(), to, f"{made_by}, {source_hash(worker, reader)}")


def _our_command(method: Method, case: Case, folder: Path, to: Path) -> tuple[str, ...]:
    count = str(len(list(case.images.iterdir())))
    return (
        *(*PROGRAM, "calibrate", str(case.model), "--images", str(case.images), "--calibration-images", count),
        *("--method", method.method, "--to", str(to), "--table", str(folder / "table.json"), "--no-report"),
        *(("--weights", "per-tensor") if method.per_tensor else ()),
        *(("--weight-bits", "4") if method.weight_bits == 4 else ()),
        *(("--all-int8",) if method.all_int8 else ()),
        *case.description,
    )


@lru_cache
def _our_version() -> str:
    return f"dlv3deploy {dlv3deploy.__version__}, {source_hash(PACKAGE / 'calibration', PACKAGE / 'core')}"


def made(method: Method, case: Case, folder: Path, peers: Peers, limits: Limits) -> Made:
    """Run the method's command, unless the same was run before: a failure is tried again, a limit when it is a higher one.

    Raises NotInstalled when a peer cannot be had, CheckFailed when the command changed its input, KeyboardInterrupt when the
    user ends it.
    """
    plan = making(method, case, folder, peers)
    key: Key = {
        "method": method.name,
        "model": case.fingerprints["model"],
        "images": case.fingerprints["images"],
        "spec": case.spec.to_text(),
        "options": list(case.description),
        "version": plan.version,
    }

    def run() -> Fact:
        for old in (plan.to, folder / "table.json"):  # what is left of another run could be taken for done
            old.unlink(missing_ok=True)
        outcome = run_measured(plan.command, limits, plan.environment)
        if sha256_of(case.model) != case.fingerprints["model"]:
            raise CheckFailed(
                f"{method.title} changed the model it was given to read; nothing that follows would be comparable"
            )
        lacks_file = outcome.end == "done" and not plan.to.is_file()
        end, reason = ("failed", "it wrote no model") if lacks_file else (outcome.end, _reason(outcome.end, outcome.stderr))
        return {
            "end": end,
            "reason": reason,
            "sha256": sha256_of(plan.to) if end == "done" else "",
            "seconds": outcome.seconds,
            "peak_mb": outcome.peak_mb,
            "limits": [limits.seconds, limits.memory_mb],
            "day": date.today().isoformat(),
            "machine": _machine(),
        }

    fact = remembered(folder / "made.json", key, run, lambda found: _still_holds(found, plan.to, limits))
    return Made(plan.to, fact["sha256"], fact["end"], fact["seconds"], fact["peak_mb"], fact["reason"], fact["day"])


def _machine() -> str:
    """What seconds depend on."""
    found = this_machine(None)
    return f"{found.cpu}, {found.cores} cores"


def _reason(end: str, stderr: str) -> str:
    return last_words(stderr) if end == "failed" else ""


def _still_holds(fact: Fact, model: Path, limits: Limits) -> bool:
    end: str = fact["end"]
    if fact.get("machine") != _machine():
        return False
    if end == "done":
        return model.is_file() and sha256_of(model) == fact["sha256"]
    seconds, memory_mb = fact["limits"]
    if end == "out of memory":
        return limits.memory_mb <= int(memory_mb)
    return end == "out of time" and limits.seconds <= float(seconds)
