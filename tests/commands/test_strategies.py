"""`evaluate` and `run` with --scales and --flip: for checkpoints, engines, and ONNX files of fixed and of dynamic size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run as dlv3deploy
from command_line import succeed
from tiny_models import CLASSES, GraphWriter, tiny_spec, write_tiny

from dlv3deploy.commands.models import open_model
from dlv3deploy.core.engine import Batch, Outputs
from dlv3deploy.core.foreign import Description
from dlv3deploy.core.graph import embed_spec
from dlv3deploy.core.images import read_frame, read_label
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import Architecture, OutputSpec
from dlv3deploy.core.strategy import PAPER_SCALES, Strategy
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


def refused(*arguments: object) -> str:
    done = dlv3deploy(*arguments)
    assert done.exit_code == 1, (done.stdout, done.stderr, done.exception)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


def convolutions(writer: GraphWriter) -> str:
    """Scores at output stride 4 for any size."""
    stem = writer.relu(writer.conv("image", "stem", (8, 3, 3, 3), stride=2))
    features = writer.node("MaxPool", [stem], "features", kernel_shape=[2, 2], strides=[2, 2])
    return writer.conv(features, "scores", (CLASSES, 8, 1, 1))


def onnx_file(folder: Path, dynamic: bool) -> Path:
    path = folder / "model.onnx"
    if not dynamic:
        return write_tiny(path)
    writer = GraphWriter()
    model = writer.model(convolutions(writer), 17, dynamic=True)
    embed_spec(model, tiny_spec())
    path.write_bytes(model.SerializeToString())
    return path


def checkpoint(folder: Path) -> Path:
    import torch

    from dlv3deploy.train.checkpoint import save_checkpoint
    from dlv3deploy.train.network.deeplabv3 import DeepLabV3

    architecture = Architecture("resnet18", output_stride=16, aspp_channels=8)
    torch.manual_seed(0)
    model = DeepLabV3(architecture, CLASSES).eval()
    with torch.no_grad():  # so that the class follows from the picture
        model.classifier[-1].bias.zero_()
        model.classifier[-1].weight.normal_()
    save_checkpoint(folder / "model.safetensors", model, replace(tiny_spec(), architecture=architecture))
    return folder / "model.safetensors"


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The sizes of all batches that ONNX Runtime is given."""
    seen: list[tuple[int, ...]] = []
    infer = OnnxRuntimeEngine.infer

    def watched(engine: OnnxRuntimeEngine, batch: Batch) -> Outputs:
        seen.append(batch.shape[2:])
        return infer(engine, batch)

    monkeypatch.setattr(OnnxRuntimeEngine, "infer", watched)
    return seen


@pytest.mark.parametrize("kind", ["fixed", "dynamic", "engine"])
def test_a_model_sees_every_scale_and_its_mirror_image(
    tmp_path: Path, scenes: Path, shapes: list[tuple[int, ...]], kind: str
) -> None:
    model = onnx_file(tmp_path, dynamic=kind == "dynamic")
    if kind == "engine":
        succeed("build-engine", model, "--workspace", tmp_path)
        model = tmp_path / "model.fp32.cpu.engine"
        shapes.clear()
    options = ("--data", scenes, "--limit", 1, "--scales", "0.5,1,1.5", "--flip", "--json")
    facts = json.loads(succeed("evaluate", model, *options).stdout)
    assert (facts["scales"], facts["flip"], facts["size"]) == ([0.5, 1, 1.5], True, [64, 96])
    whole = [(32, 48)] * 2 + [(64, 96)] * 2 + [(96, 144)] * 2
    assert shapes == (whole if kind == "dynamic" else [(64, 96)] * (2 + 2 + 2 * 4))


def test_a_checkpoint_is_scored_as_the_segmenter_sees_it(tmp_path: Path, scenes: Path) -> None:
    pytest.importorskip("torch")
    from dlv3deploy.core.datasets import open_dataset
    from dlv3deploy.measure.evaluate import evaluate

    path = checkpoint(tmp_path)
    options = ("--data", scenes, "--limit", 2, "--json")
    given = json.loads(succeed("evaluate", path, *options, "--scales", "paper", "--flip").stdout)
    plain = json.loads(succeed("evaluate", path, *options).stdout)
    assert (given["scales"], given["flip"]) == (list(PAPER_SCALES), True)
    assert (plain["scales"], plain["flip"]) == ([1], False)
    with open_model(path, Description()) as engine:
        samples = open_dataset(scenes, "val", engine.spec.classes).samples
        for facts, strategy in ((given, Strategy(PAPER_SCALES, flip=True)), (plain, Strategy())):
            scores = evaluate(Segmenter(engine, strategy=strategy), [samples[0], samples[len(samples) // 2]])
            assert facts["miou"] == scores.miou
    assert given["miou"] != plain["miou"]


def test_another_output_stride_is_the_checkpoints_whatever_lies_beside_it(tmp_path: Path, scenes: Path) -> None:
    pytest.importorskip("torch")
    onnx, path = onnx_file(tmp_path, dynamic=False), checkpoint(tmp_path)
    options = ("--workspace", tmp_path, "--data", scenes, "--limit", 1, "--output-stride", 8)
    facts = json.loads(succeed("evaluate", *options, "--json").stdout)
    assert (facts["model"], facts["output_stride"]) == (str(path), 8)
    line = refused("evaluate", onnx, *options)
    assert f"give {path}, or export it so: dlv3deploy export --output-stride 8 --workspace {tmp_path}" in line
    path.unlink()
    assert "give a checkpoint, or" in refused("evaluate", *options)


def test_the_table_says_how_the_pictures_were_seen(tmp_path: Path, scenes: Path) -> None:
    model = onnx_file(tmp_path, dynamic=False)
    options = ("--data", scenes, "--limit", 1)
    strategic = " ".join(succeed("evaluate", model, *options, "--scales", "0.5,1", "--flip").stdout.split())
    assert "scales 0.5, 1, mirrored too" in strategic
    assert "scale" not in succeed("evaluate", model, *options).stdout


@pytest.mark.parametrize("dynamic", [False, True])
def test_run_writes_the_masks_of_the_strategy(tmp_path: Path, scenes: Path, dynamic: bool) -> None:
    model, images = onnx_file(tmp_path, dynamic), scenes / "val" / "images"
    options = ("--sink", f"{tmp_path / 'masks'}/", "--scales", "0.75,1.25", "--flip", "--json")
    facts = json.loads(succeed("run", model, "--source", images, *options).stdout)
    assert (facts["frames"], facts["scales"], facts["flip"]) == (6, [0.75, 1.25], True)
    changed = 0
    with open_model(model, Description()) as engine:
        segment, plain = Segmenter(engine, strategy=Strategy((0.75, 1.25), flip=True)), Segmenter(engine)
        for path in sorted(images.iterdir()):
            frame = read_frame(path)
            assert np.array_equal(read_label(tmp_path / "masks" / f"{path.stem}.png"), segment(frame))
            changed += not np.array_equal(plain(frame), segment(frame))
    assert changed == 6


@pytest.mark.parametrize("command", ["evaluate", "run"])
@pytest.mark.parametrize(
    ("scales", "said"),
    [
        ("0", "0.1 to 4"),
        ("nan", "0.1 to 4"),
        ("-1", "0.1 to 4"),
        ("1e400", "0.1 to 4"),
        ("0.5,100", "0.1 to 4"),
        ("abc", "'abc'"),
        ("0.5;1", "'0.5;1'"),
        ("1,", "'1,'"),
        ("", "''"),
        ("1,1", "twice"),
        ("Paper", "or paper"),
    ],
)
def test_scales_that_make_no_sense_are_refused_before_anything_is_read(command: str, scales: str, said: str) -> None:
    source = ("--source", "nowhere.png") if command == "run" else ()
    line = refused(command, "nowhere.onnx", *source, f"--scales={scales}")
    assert said in line
    assert "0.5,1,1.5" in line or "once" in line


@pytest.mark.parametrize("options", [("--flip",), ("--scales", "0.5,1")])
def test_a_model_that_returns_class_ids_is_refused(tmp_path: Path, scenes: Path, options: tuple[Any, ...]) -> None:
    from onnx import TensorProto

    writer = GraphWriter()
    best = writer.node("ArgMax", [convolutions(writer)], "best", axis=1, keepdims=0)
    model = writer.model(writer.node("Cast", [best], "ids", to=TensorProto.FLOAT), 17)
    embed_spec(model, replace(tiny_spec(), output=OutputSpec("mask")))
    path = tmp_path / "mask.onnx"
    path.write_bytes(model.SerializeToString())
    succeed("evaluate", path, "--data", scenes, "--limit", 1)
    line = refused("evaluate", path, "--data", scenes, *options)
    assert "class ids" in line
    assert "--output scores" in line
    image = next((scenes / "val" / "images").iterdir())
    assert "--output scores" in refused("run", path, "--source", image, "--sink", f"{tmp_path}/masks/", *options)
    assert not (tmp_path / "masks").exists()
