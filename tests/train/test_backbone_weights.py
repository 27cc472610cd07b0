"""Starting from published backbone weights: what fits is taken whole, anything else is refused with its reason."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_runs import SMALL
from torch import Tensor

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.spec import Architecture
from dlv3deploy.train.checkpoint import load_backbone_weights
from dlv3deploy.train.network.deeplabv3 import DeepLabV3

RESNET18 = Architecture("resnet18", 16, (1,), 8)


def fresh(architecture: Architecture = SMALL, seed: int = 0) -> DeepLabV3:
    torch.manual_seed(seed)
    return DeepLabV3(architecture, 3)


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """A backbone's state dict, different from that of `fresh()` in every tensor."""
    state = fresh(seed=9).backbone.state_dict()
    return {name: tensor + 1 for name, tensor in state.items()}


def assert_backbone_is(model: DeepLabV3, weights: dict[str, Tensor]) -> None:
    found = model.backbone.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_names_may_be_bare_or_behind_backbone(tmp_path: Path, weights: dict[str, Tensor], suffix: str, prefix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    stored = {f"{prefix}{name}": tensor for name, tensor in weights.items()}
    save_file(stored, path) if suffix == ".safetensors" else torch.save(stored, path)
    model = fresh()
    load_backbone_weights(path, model)
    assert_backbone_is(model, weights)


def test_the_head_keeps_its_own_weights(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path, model = tmp_path / "whole.pth", fresh()
    head = {name: tensor.clone() for name, tensor in model.classifier.state_dict().items()}
    foreign = {f"classifier.{name}": torch.zeros_like(tensor) for name, tensor in head.items()}
    torch.save({f"backbone.{name}": tensor for name, tensor in weights.items()} | foreign, path)
    load_backbone_weights(path, model)
    assert_backbone_is(model, weights)
    assert all(torch.equal(model.classifier.state_dict()[name], tensor) for name, tensor in head.items())


def test_a_classifiers_layers_are_left_aside(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path, model = tmp_path / "mobilenet.pth", fresh()
    extra = {"features.18.0.weight": torch.zeros(1280, 320, 1, 1), "classifier.1.weight": torch.zeros(1000, 1280)}
    torch.save(weights | extra, path)
    load_backbone_weights(path, model)
    assert_backbone_is(model, weights)


def test_a_resnets_fc_is_left_aside(tmp_path: Path) -> None:
    path, model = tmp_path / "resnet18.pth", fresh(RESNET18)
    published = fresh(RESNET18, seed=4).backbone.state_dict()
    torch.save({**published, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, path)
    load_backbone_weights(path, model)
    assert_backbone_is(model, published)


def test_a_state_dict_may_lie_under_its_name(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path, model = tmp_path / "training.pth", fresh()
    torch.save({"state_dict": weights, "epoch": 12}, path)
    load_backbone_weights(path, model)
    assert_backbone_is(model, weights)


def test_old_weights_without_batch_counters_fit(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path, model = tmp_path / "old.pth", fresh()
    torch.save({name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}, path)
    load_backbone_weights(path, model)
    assert torch.equal(model.backbone.state_dict()["features.0.0.weight"], weights["features.0.0.weight"])


def test_vainfs_split_features_fit(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    split = {}
    for name, tensor in weights.items():
        part = "low" if int(name.split(".")[1]) < 4 else "high"
        split[f"module.backbone.{part}_level_{name}"] = tensor
    torch.save({"model_state": split, "best_score": np.float64(0.7)}, tmp_path / "best.pth")
    model = fresh()
    load_backbone_weights(tmp_path / "best.pth", model)
    assert_backbone_is(model, weights)


def test_weights_of_something_more_are_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save({**weights, "features.2.extra.weight": torch.zeros(1)}, tmp_path / "more.pth")
    assert "it has features.2.extra.weight as well" in refusal(tmp_path / "more.pth")


def refusal(path: Path, architecture: Architecture = SMALL) -> str:
    """The message with which `path` is refused; the model is as it was before."""
    model = fresh(architecture)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as raised:
        load_backbone_weights(path, model)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_missing_weight_is_named(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    del weights["features.3.conv.0.0.weight"]
    torch.save(weights, tmp_path / "weights.pth")
    assert "it lacks features.3.conv.0.0.weight" in refusal(tmp_path / "weights.pth")


def test_a_wrong_shape_is_named(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    weights["features.0.0.weight"] = torch.zeros(16, 3, 3, 3)
    torch.save(weights, tmp_path / "weights.pth")
    assert "it has features.0.0.weight of shape [16, 3, 3, 3]" in refusal(tmp_path / "weights.pth")


def test_weights_of_another_backbone_are_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(weights, tmp_path / "mobilenet.pth")
    assert "does not fit a resnet18 backbone" in refusal(tmp_path / "mobilenet.pth", RESNET18)


def test_a_deeper_network_is_refused_though_its_first_blocks_fit(tmp_path: Path) -> None:
    deeper = DeepLabV3(Architecture("resnet34", 16, (1,), 8), 3).backbone.state_dict()
    torch.save(deeper, tmp_path / "resnet34.pth")
    assert "it has layer1.2.bn1.bias as well" in refusal(tmp_path / "resnet34.pth", RESNET18)


class Payload:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path, writer: str) -> None:
    path, trace = tmp_path / "weights.pth", tmp_path / "it-ran"
    content = {"features.0.0.weight": torch.zeros(1), "payload": Payload(trace)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    assert "is no readable state dict" in refusal(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if writer == "torch" else pickle.loads(path.read_bytes())
    assert trace.exists(), "the payload of this test is harmless, so the test proves nothing"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([torch.zeros(1)], "holds no state dict"),
        ({"features.0.0.weight": "text"}, "holds no state dict"),
        ({0: torch.zeros(1)}, "holds no state dict"),
        ({"state_dict": torch.zeros(1)}, "holds no state dict"),
        ({}, "it lacks features.0.0.weight"),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: object, problem: str) -> None:
    torch.save(content, tmp_path / "weights.pth")
    assert problem in refusal(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_files_that_are_no_weights_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert "does not exist" in refusal(path)
    path.write_bytes(b"")
    assert "is empty" in refusal(path)
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    assert str(path) in refusal(path)


@pytest.mark.real_data
def test_the_real_mobilenet_weights_fit_and_compute_sensible_features(shared: Path) -> None:
    path = shared / "models" / "mobilenet_v2_features_voc.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path}")
    model = fresh()
    load_backbone_weights(path, model)
    picture = shared / "data" / "camvid" / "val" / "images"
    from dlv3deploy.core.images import list_images, read_frame

    frame = read_frame(list_images(picture)[0])
    image = torch.from_numpy(np.ascontiguousarray(frame[:, :, ::-1])).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        features = model.eval().backbone(image).high
    assert features.shape == (1, 320, -(-frame.shape[0] // 16), -(-frame.shape[1] // 16))
    # Linear bottlenecks behind trained batch norm: centred, of moderate size, and different from place to place.
    assert features.isfinite().all() and 0.1 < features.std() < 10
    assert (features.std((2, 3)) > 0.01).float().mean() > 0.9
