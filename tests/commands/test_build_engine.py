"""`dlv3deploy build-engine` and what shows its engines: nothing of others is replaced, and nobody is told what is not so."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import tiny_deeplab, tiny_spec, write_tiny
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.core.graph import embed_spec, fix_input
from dlv3deploy.core.workspace import Workspace, manifest_path
from dlv3deploy.engines import build as building
from dlv3deploy.engines.manifest import Manifest, Timing

pytest.importorskip("onnxruntime")


def dlv3deploy(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "160"})


def build(work: Path, *arguments: object) -> Result:
    done = dlv3deploy("build-engine", "--workspace", work, "--backend", "onnxruntime", *arguments)
    assert done.exit_code == 0, done.output
    return done


def edited(engine: Path, **fields: object) -> None:
    path = manifest_path(engine)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("stranger", ["x.engine", "x.engine.json"])
def test_what_it_did_not_make_stays(work: Path, tmp_path: Path, stranger: str) -> None:
    other = tmp_path / stranger
    other.write_text('{"of": "somebody else"}')
    done = dlv3deploy("build-engine", "--workspace", work, "--backend", "onnxruntime", "--to", tmp_path / "x.engine")
    assert done.exit_code == 1 and f"{other} is there, and was not made by build-engine" in done.stderr
    assert other.read_text() == '{"of": "somebody else"}'
    other.unlink()
    for _ in range(2):  # its own it replaces
        build(work, "--to", tmp_path / "x.engine")


def test_no_cache_builds_anew_and_what_it_made_is_what_is_kept(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter(range(1, 9))
    monkeypatch.setattr(building, "measure_latency", lambda *_: Timing(ms := float(next(measured)), ms, 3))
    manifest = manifest_path(work / "model.fp32.cpu.engine")
    found = []
    for options, is_taken in (((), False), ((), True), (("--no-cache",), False), ((), True)):
        assert ("an equal engine (FP32, no rewrites) was built 20" in build(work, *options).stderr) == is_taken
        found.append(json.loads(manifest.read_text())["timing"]["p50_ms"])
    assert found == [1.0, 1.0, 2.0, 2.0]


def test_no_cache_needs_no_cache(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DLV3DEPLOY_CACHE", str(tmp_path / "file"))
    build(work, "--no-cache")
    done = dlv3deploy("build-engine", "--workspace", work, "--backend", "onnxruntime")
    assert done.exit_code == 1 and "name another with DLV3DEPLOY_CACHE, or add --no-cache" in done.stderr


def test_a_command_that_somebody_wrote_is_never_the_remedy(work: Path) -> None:
    build(work)
    edited(work / "model.fp32.cpu.engine", command="rm -rf /")
    done = dlv3deploy("evaluate", work / "model.fp32.cpu.engine", "--data", work)
    assert done.exit_code == 3 and "the manifest's command" in done.stderr and "rm -rf" not in done.stderr
    assert "rebuild with: dlv3deploy build-engine" in done.stderr


@pytest.mark.parametrize("what", ["the file", "the graph", "the manifest", "nothing"])
def test_inspect_says_what_makes_an_engine_stale(work: Path, what: str) -> None:
    build(work)
    engine = work / "model.fp32.cpu.engine"
    if what == "the file":
        engine.write_bytes(engine.read_bytes() + b"!")
    elif what == "the graph":
        write_tiny(work / "model.onnx", seed=3)
    elif what == "the manifest":
        edited(engine, precision="int8")
    shown = dlv3deploy("inspect", engine)
    told = {
        "the file": "sha256 of the engine file",
        "the graph": "sha256 of model.onnx",
        "the manifest": "the manifest's precision",
    }
    assert shown.exit_code == 0 and ("STALE" in shown.stdout) == (what != "nothing")
    assert told.get(what, "") in shown.stdout
    assert (json.loads(dlv3deploy("inspect", engine, "--json").stdout)["stale"] is None) == (what == "nothing")


def test_a_manifest_of_another_version_is_called_that(work: Path) -> None:
    build(work)
    engine = work / "model.fp32.cpu.engine"
    edited(engine, format=3)
    done = dlv3deploy("inspect", engine)
    assert done.exit_code == 1 and "is no manifest of this version (its format is 3, this version's is " in done.stderr
    edited(engine, timing=3, format=json.loads((work / "model.fp32.cpu.engine.json").read_text())["format"] + 2)
    build(work, "--to", engine)  # it is ours, and may be replaced


def test_an_engine_for_several_images_says_so(work: Path) -> None:
    model = fix_input(tiny_deeplab(), ("batch", 3, 64, 96))
    from tiny_models import tiny_spec

    from dlv3deploy.core.graph import embed_spec

    embed_spec(model, tiny_spec())
    (work / "model.onnx").write_bytes(model.SerializeToString())
    build(work)
    assert re.search(r"latency [\d.]+ ms for 4 images \(median", build(work, "--batch", 4).stderr)
    shown = dlv3deploy("inspect", work / "model.fp32.cpu-batch4.engine").stdout
    assert "1 to 4 images" in shown and "runs for 4 images" in shown
    manifest = manifest_path(work / "model.fp32.cpu.engine")
    assert json.loads(manifest.read_text())["images"] == 1


def test_several_sources_take_the_engine_that_is_fastest_for_them(work: Path) -> None:
    from dlv3deploy.commands.models import best_artefact

    model = fix_input(tiny_deeplab(), ("batch", 3, 64, 96))
    embed_spec(model, tiny_spec())
    (work / "model.onnx").write_bytes(model.SerializeToString())
    one, four = work / "model.fp32.cpu.engine", work / "model.fp32.cpu-batch4.engine"
    build(work)
    build(work, "--batch", 4)
    for engine, ms in ((one, 2.0), (four, 5.0)):
        manifest = replace(Manifest.read(engine), timing=Timing(ms, ms, 9))
        manifest.write(manifest_path(engine))
    found = [best_artefact(Workspace(work), together=count) for count in (1, 2, 3, 4, 5)]
    assert found == [one, one, four, four, four]  # 2, 4, 5, 5, 10 ms


@pytest.mark.parametrize("targets", [("sm_89", "8.9"), ("89",), ("8.9", "89", "sm_89")])
def test_a_target_is_one_however_it_is_written(work: Path, targets: tuple[str, ...]) -> None:
    pytest.importorskip("tensorrt_rtx")
    asked = [word for target in targets for word in ("--target", target)]
    done = dlv3deploy("build-engine", "--workspace", work, "--backend", "tensorrt-rtx", *asked)
    assert done.exit_code == 0, done.output
    (engine,) = work.glob("*.engine")
    target = json.loads(manifest_path(engine).read_text())["target"]
    assert engine.name == "model.fp16.tensorrt-rtx-89.engine"
    assert (target["device"], target["compute_capability"]) == ("any GPU of these compute capabilities", "8.9")


def test_bf16_is_refused_for_what_has_none(work: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    done = dlv3deploy("build-engine", "--workspace", work, "--backend", "tensorrt-rtx", "--bf16", "--target", "sm_75")
    assert done.exit_code == 1 and "compute capability 7.5 has no BF16, GPUs since Ampere (8.0) do; use --fp16" in done.stderr


def test_tuning_for_what_the_builder_does_not_run_on_says_so(work: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    done = dlv3deploy("build-engine", "--workspace", work, "--tune", "--fp16", "--device", "orin-nano")
    assert done.exit_code == 0, done.output
    assert (
        "tensorrt-rtx does not run on Jetson Orin Nano 8GB: this engine says what to ask TensorRT for there, --fp16"
        in done.stderr
    )
    done = dlv3deploy("build-engine", "--workspace", work, "--tune", "--fp16", "--device", "rtx 4090")
    assert done.exit_code == 0 and "does not run on" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_is_ended_leaves_nothing_half_written(work: Path, number: int) -> None:
    """The signal comes while the engine is timed; the process is a real one."""
    program = (
        "import time, dlv3deploy.engines.build as b\n"
        "def wait(*_):\n    print('timing', flush=True)\n    time.sleep(60)\n"
        "b.measure_latency = wait\n"
        "from dlv3deploy.cli import main\nmain()\n"
    )
    command = [sys.executable, "-c", program, "build-engine", "--workspace", str(work), "--backend", "onnxruntime"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None and process.stdout.readline() == "timing\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in said
    assert sorted(path.name for path in work.iterdir()) == ["model.onnx"]
