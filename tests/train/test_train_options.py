"""Options of `train` that contradict each other or have no effect are refused by name, before the data and torch are opened."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL, environment, small_plan
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.commands.train_together import check_together
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture
from dlv3deploy.train import preparation
from dlv3deploy.train.loop import train
from dlv3deploy.train.network.choices import BACKBONES, CASCADES, NATIVE_STRIDE, idle_settings
from dlv3deploy.train.network.deeplabv3 import DeepLabV3, build_backbone
from dlv3deploy.train.network.resnet import LAYOUTS, Bottleneck

NOWHERE = "no-such-data"  # a refusal that names anything else came before the data were opened


def asked(*options: str) -> Result:
    return CliRunner().invoke(app, ["train", NOWHERE, *options])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--head cascade --backbone resnet50 --aspp-channels 256", "--aspp-channels with head cascade: a cascade has no ASPP"),
        ("--head cascade --backbone resnet50 --dropout 0.1", "--dropout with head cascade"),
        ("--head lraspp --backbone mobilenet_v3_large --aspp-rates 1,2", "--aspp-rates with head lraspp"),
        ("--head deeplabv2 --image-pooling --no-aspp-batch-norm", "--no-aspp-batch-norm, --image-pooling with head deeplabv2"),
        ("--decoder --no-final-convolution", "--no-final-convolution with head aspp and the decoder"),
        ("--repeats 2", "--repeats: says how often the images with --repeat-classes come"),
        ("--freeze-batch-norm", "--freeze-batch-norm with random weights: batch norm would"),
        (
            "--freeze-batch-norm --backbone-weights resnet50 --batch-norm-momentum 0.1",
            "--batch-norm-momentum with --freeze-batch-norm: frozen statistics do not move",
        ),
        ("--backbone-weights resnet50 --from model.safetensors", "--backbone-weights and --from: both say"),
        ("--from m.safetensors --backbone mobilenet_v2", "--from with --backbone: the network is the checkpoint's"),
        ("--from m.safetensors --width 1 --no-image-pooling", "--from with --width, --no-image-pooling: the network is"),
    ],
)
def test_an_option_without_effect_is_refused_even_with_its_default_value(options: str, says: str) -> None:
    result = asked(*options.split())
    assert says in result.stderr and result.exit_code == 1, result.output
    assert NOWHERE not in result.stderr


@pytest.mark.parametrize("origin", ["start_from", "backbone_weights", "resume"])
def test_batch_norm_may_be_frozen_where_it_was_trained(origin: str) -> None:
    check_together({"frozen_batch_norm": "--freeze-batch-norm", origin: "--…"})


CHANGES: dict[str, Any] = {
    "aspp_rates": (3, 5),
    "aspp_channels": 16,
    "aspp_batch_norm": False,
    "image_pooling": False,
    "final_convolution": False,
}


@pytest.mark.parametrize(
    "architecture",
    [
        SMALL,
        replace(SMALL, decoder=True),
        replace(SMALL, head="deeplabv2"),
        replace(SMALL, backbone="resnet50", head="cascade"),
        replace(SMALL, backbone="mobilenet_v3_large", head="lraspp"),
    ],
    ids=str,
)
def test_what_is_called_idle_changes_no_layer_and_all_else_does(architecture: Architecture) -> None:
    with torch.device("meta"):
        plain = str(DeepLabV3(architecture, 3))
        changed = {name: str(DeepLabV3(replace(architecture, **{name: value}), 3)) for name, value in CHANGES.items()}
        changed["dropout"] = str(DeepLabV3(architecture, 3, dropout=0.25))
    assert {name for name, layers in changed.items() if layers == plain} == set(idle_settings(architecture))


def test_the_names_and_strides_that_are_known_without_torch_are_those_of_the_networks() -> None:
    assert set(LAYOUTS) | {"mobilenet_v2", "mobilenet_v3_large"} == set(BACKBONES)
    assert {name for name, layout in LAYOUTS.items() if layout.block is Bottleneck} == set(CASCADES)
    for backbone in BACKBONES:
        with torch.device("meta"):
            features = build_backbone(Architecture(backbone, NATIVE_STRIDE))(torch.zeros(1, 3, 256, 256))
        assert features.high.shape[2:] == (256 // NATIVE_STRIDE, 256 // NATIVE_STRIDE)


@pytest.mark.parametrize(
    "option",
    [
        "--optimiser adam",
        "--head unet",
        "--backbone vgg16",
        "--output-stride 0",
        "--batch-size 1",
        "--precision fp8",
        "--size 60x96",
        "--crop 40x64",
        "--std 0,1,1",
        "--scale 2",
        "--split val",
        "--resize crop",
        "--ohem 2",
        "--aspp-rates 6,x",
        "--backbone-weights nothing.pth",
        "--backbone-weights nothing",
        "--from nothing.safetensors",
        "--resume",
    ],
)
def test_a_bad_option_is_refused_before_the_data_are_looked_for(option: str) -> None:
    result = asked(*option.split())
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and NOWHERE not in result.stderr


def test_options_and_data_are_checked_without_torch(few_scenes: Path, tmp_path: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; from dlv3deploy.cli import main; main()"
    data = tmp_path / "data"
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "state.pt").write_bytes(b"what torch alone can read")
    for words, says in (
        ((few_scenes, "--batch-size", "1"), "error: batch size 1"),
        ((data, "--restart"), f"error: {data}: is no folder"),
        ((few_scenes, "--restart"), "error: this command needs torch"),
    ):
        command = [sys.executable, "-c", program, "train", *map(str, words), "--workspace", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
        assert done.returncode == 1 and done.stderr.startswith(says), done.stderr


@pytest.mark.parametrize("option", ["backbone_weights", "start_from"])
def test_weights_that_cannot_be_used_are_refused_before_the_data_are_read(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    junk = tmp_path / "weights.pth"
    junk.write_bytes(b"junk")
    monkeypatch.setattr(preparation, "open_dataset", lambda *_: pytest.fail("the data were read"))
    with pytest.raises(UserError, match="weights.pth"):
        train(small_plan(few_scenes, **{option: junk}), tmp_path / "model.safetensors", tmp_path / "train")
