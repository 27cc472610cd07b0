"""`dlv3deploy benchmark`: one table for several models, the same as JSON, and the layers of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run as dlv3deploy
from command_line import succeed
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.measure import benchmark as module

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")
SHORT = ("--seconds", 0, "--frame", "96x128")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WARM_UP_S", 0.0)


def test_the_workspace_s_best_is_timed_and_told_as_json(work: Path) -> None:
    facts = json.loads(succeed("benchmark", "--workspace", work, *SHORT, "--json").stdout)
    assert facts["frame"] == [96, 128] and facts["rounds"] == module.FEWEST_ROUNDS
    (model,) = facts["models"]
    assert model["model"] == str(work / "model.onnx") and model["input"] == [HEIGHT, WIDTH]
    assert facts["latency_ms"] == model["latency_ms"]
    assert 0 < model["latency_ms"]["p50"] <= model["latency_ms"]["p90"] <= model["latency_ms"]["p99"]
    assert all(0 < model["stages_ms"][name] < model["latency_ms"]["p99"] for name in module.STAGES)
    assert "layers" not in model


def test_models_stand_beside_each_other_with_their_layers(work: Path) -> None:
    succeed("build-engine", "--workspace", work, "--backend", "onnxruntime")
    engine = work / "model.fp32.cpu.engine"
    shown = "".join(succeed("benchmark", work / "model.onnx", engine, *SHORT, "--layers").stdout.split())  # wherever lines end
    assert f"{engine}:ONNXRuntime" in shown and "asfast" in shown
    assert f"layersof{engine}" in shown
    facts = json.loads(succeed("benchmark", work / "model.onnx", engine, *SHORT, "--layers", "--json").stdout)
    for model in facts["models"]:
        kinds = [layer["kind"] for layer in model["layers"]]
        assert sum(kind.endswith("Conv") for kind in kinds) == 8, kinds  # the network's, each once
        assert all(layer["ms"] >= 0 for layer in model["layers"])
        assert sum(layer["ms"] for layer in model["layers"]) > 0


def test_frames_may_come_from_files(work: Path, tmp_path: Path) -> None:
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((48, 64, 3), 40 * number, np.uint8))
    facts = json.loads(succeed("benchmark", "--workspace", work, "--seconds", 0, "--source", tmp_path, "--json").stdout)
    assert facts["frame"] == [48, 64]


def test_what_cannot_be_timed_is_refused(work: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(tiny_deeplab().SerializeToString())
    for words, says in (
        ((work / "model.onnx", "--mean", "1,2,3"), "describes itself"),
        (("--workspace", work, "--source", tmp_path, "--frame", "8x8"), "--frame with --source"),
        (("--workspace", work, "--source", "rtsp://127.0.0.1:1/x"), "is live, and models are compared on the same frames"),
        (("--workspace", work, "--frame", "8x8"), "sides are 32 to 4096 pixels"),
        ((tmp_path / "missing.engine",), "missing.engine"),
    ):
        refused = dlv3deploy("benchmark", *words)
        assert refused.exit_code == 1 and says in refused.stderr, refused.stderr
    both = succeed("benchmark", foreign, work / "model.onnx", "--mean", "1,2,3", *SHORT)
    assert str(foreign) in both.stdout


def test_a_checkpoint_is_timed_but_not_its_layers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from dlv3deploy.core.spec import Architecture, InputSpec, ModelSpec, OutputSpec
    from dlv3deploy.scenes import ROAD_SCENE
    from dlv3deploy.train.checkpoint import save_checkpoint
    from dlv3deploy.train.network.deeplabv3 import DeepLabV3

    torch.manual_seed(0)
    architecture = Architecture("resnet18", 16, (2, 4), 8)
    spec = ModelSpec(ROAD_SCENE, InputSpec(32, 48), OutputSpec("scores"), architecture=architecture)
    save_checkpoint(tmp_path / "model.safetensors", DeepLabV3(architecture, len(ROAD_SCENE)), spec)
    facts = json.loads(succeed("benchmark", tmp_path / "model.safetensors", *SHORT, "--json").stdout)
    assert "PyTorch" in facts["models"][0]["engine"]
    refused = dlv3deploy("benchmark", tmp_path / "model.safetensors", *SHORT, "--layers")
    assert refused.exit_code == 1 and "layers of a checkpoint are not timed" in refused.stderr
