"""`import-weights`: what lands in the workspace, what is said, and what is refused without a trace."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from by_name import Weights, random_weights
from file_server import Served
from published_names import classifier_names, torchvision_lraspp_names, torchvision_names, vainf_names
from safetensors import safe_open
from small_runs import SMALL, write_lively_checkpoint
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app
from dlv3deploy.core.checkpoints import checkpoint_facts
from dlv3deploy.core.classes import CAMVID, CITYSCAPES, VOC, anonymous_classes
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.spec import IMAGENET_MEAN, Architecture, InputSpec
from dlv3deploy.train.checkpoint import load_checkpoint
from dlv3deploy.train.weights.published import PUBLISHED

MOBILENET = vainf_names("mobilenet_v2", plus=False, channels=8)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def dlv3deploy(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def done(*arguments: object) -> str:
    """What the command says on stderr."""
    result = dlv3deploy(*arguments)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert not result.stdout
    return result.stderr


def refused(*arguments: object, code: int = 1) -> str:
    """The one line that the command ends with; nothing was written or changed."""
    before = tree()
    result = dlv3deploy(*arguments)
    assert result.exit_code == code, (result.stderr, result.exception)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in result.output
    assert tree() == before
    return lines[0]


def tree() -> dict[str, str]:
    return {str(path): sha256_of(path) for path in Path().rglob("*") if path.is_file()}


def saved(weights: Weights, name: str = "w.pth") -> Path:
    torch.save(weights, name)
    return Path(name)


def lraspp(classes: int = 5, seed: int = 1) -> Weights:
    return random_weights(torchvision_lraspp_names(classes), seed)


# --- what lands ------------------------------------------------------------------------------------------------------


def test_a_model_becomes_the_workspaces_checkpoint_with_a_full_description() -> None:
    path = saved(random_weights(MOBILENET, 1))
    said = done("import-weights", path, "--classes", "voc")
    spec = checkpoint_facts(Path("artifacts/model.safetensors")).spec
    assert spec.architecture == Architecture("mobilenet_v2", 16, (6, 12, 18), 8, early_padding=True)
    assert spec.classes == VOC
    assert spec.input == InputSpec(513, 513) and spec.output.kind == "scores" and spec.training is None
    assert spec.parents == {"weights": sha256_of(path)}
    assert "assumed: output stride 16, ASPP rates 6,12,18, ImageNet's mean and std, 513×513 pixels, RGB" in said
    network = "VainF's DeepLabv3 with mobilenet_v2, output stride 16, ASPP rates 6, 12, 18"
    assert f"wrote artifacts/model.safetensors: {network}, 1.9 million parameters" in said
    assert "next: dlv3deploy export, or go on training" in said
    assert list(Path("artifacts").iterdir()) == [Path("artifacts/model.safetensors")]


def test_options_describe_the_model() -> None:
    path = saved(random_weights(vainf_names("mobilenet_v2", False, 8, len(CAMVID)), 1))
    options = ["--classes", "camvid", "--output-stride", 8, "--aspp-rates", "1,2,3", "--size", "64x97"]
    said = done(
        "import-weights", path, *options, "--mean", "127.5,127.5,127.5", "--std", "127.5,127.5,127.5", "--to", "m.safetensors"
    )
    spec = checkpoint_facts(Path("m.safetensors")).spec
    assert spec.architecture == Architecture("mobilenet_v2", 8, (1, 2, 3), 8, early_padding=True)
    assert spec.classes == CAMVID
    assert spec.input == InputSpec(64, 97, mean=(127.5,) * 3, std=(127.5,) * 3)
    assert "assumed: RGB, stretched" in said and "next: dlv3deploy export m.safetensors" in said


@pytest.mark.parametrize(
    ("count", "classes"), [(21, VOC), (19, CITYSCAPES), (5, anonymous_classes(5)), (150, anonymous_classes(150))]
)
def test_classes_are_guessed_from_their_number_and_said(count: int, classes: object) -> None:
    said = done("import-weights", saved(lraspp(count)))
    assert checkpoint_facts(Path("artifacts/model.safetensors")).spec.classes == classes
    assert {21: "the 21 classes of VOC", 19: "the 19 classes of Cityscapes"}.get(
        count, f"{count} classes without names"
    ) in said


@pytest.mark.parametrize(
    ("name", "options", "stride", "rates"),
    [
        ("best_deeplabv3_mobilenet_voc_os16.pth", [], 16, (6, 12, 18)),
        ("latest_deeplabv3_mobilenet_voc_os8.pth", [], 8, (12, 24, 36)),
        ("latest_deeplabv3_mobilenet_voc_os8.pth", ["--output-stride", 32], 32, (3, 6, 9)),
        ("mine_os80.pth", [], 16, (6, 12, 18)),
    ],
)
def test_vainfs_file_names_say_the_output_stride(name: str, options: list[object], stride: int, rates: tuple[int, ...]) -> None:
    done("import-weights", saved(random_weights(MOBILENET, 1), name), *options)
    architecture = checkpoint_facts(Path("artifacts/model.safetensors")).spec.architecture
    assert architecture is not None
    assert (architecture.output_stride, architecture.aspp_rates) == (stride, rates)


def test_the_model_that_was_there_stays_beside_the_new_one() -> None:
    Path("artifacts").mkdir()
    first = write_lively_checkpoint(Path("artifacts/model.safetensors")).read_bytes()
    done("import-weights", saved(lraspp()))
    assert Path("artifacts/model.previous.safetensors").read_bytes() == first
    done("import-weights", saved(lraspp()))  # the same again changes nothing
    assert Path("artifacts/model.previous.safetensors").read_bytes() == first


def test_vainfs_whole_checkpoint_in_half_precision_comes_in() -> None:
    weights = {name: t.half() if t.is_floating_point() else t for name, t in random_weights(MOBILENET, 1).items()}
    content = {"cur_itrs": 30000, "model_state": weights, "optimizer_state": {}, "best_score": np.float64(0.7)}
    torch.save({**content, "model_state": {f"module.{name}": t for name, t in weights.items()}}, "best.pth")
    done("import-weights", "best.pth")
    model, _ = load_checkpoint(Path("artifacts/model.safetensors"))
    assert torch.equal(model.state_dict()["backbone.features.5.conv.1.0.weight"],
                       weights["backbone.high_level_features.5.conv.1.0.weight"].float())  # fmt: skip
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32, torch.int64}


def test_an_imported_model_can_be_exported() -> None:
    done("import-weights", saved(random_weights(MOBILENET, 1)), "--size", "64x97")
    result = dlv3deploy("export")
    assert result.exit_code == 0, result.stderr
    assert "differs from PyTorch by" in result.stderr


def test_a_backbone_lands_in_its_own_folder_and_training_is_named() -> None:
    said = done("import-weights", saved(random_weights(classifier_names("mobilenet_v2"), 1)), "-w", "my work")
    assert "a mobilenet_v2 backbone, 1.8 million parameters" in said
    path = "my work/backbones/mobilenet_v2.safetensors"
    assert f"next: dlv3deploy train DATA --backbone mobilenet_v2 --backbone-weights '{path}' --workspace 'my work'" in said
    with safe_open(path, "np") as file:
        assert file.metadata() == {"weights": sha256_of(Path("w.pth"))}


# --- by name ---------------------------------------------------------------------------------------------------------


def publish(server: Served, monkeypatch: pytest.MonkeyPatch, name: str, weights: Weights) -> None:
    """Put `weights` where `name` is looked for."""
    content = saved(weights, "published.pth").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    entry = replace(PUBLISHED[name], sha256=sha256)
    monkeypatch.setitem(PUBLISHED, name, entry)
    server.files[f"/models/{entry.file}"] = content


def test_published_weights_come_by_name(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, "lraspp_mobilenet_v3_large", lraspp(21))
    said = done("import-weights", "lraspp_mobilenet_v3_large")
    assert f"fetching {server.url}/models/lraspp_mobilenet_v3_large-d234d4ea.pth (13.1 MB)" in said
    assert "torchvision's LR-ASPP with mobilenet_v3_large" in said and "the 21 classes of VOC" in said
    spec = checkpoint_facts(Path("artifacts/model.safetensors")).spec
    assert spec.parents == {"weights": PUBLISHED["lraspp_mobilenet_v3_large"].sha256}
    assert spec.input.mean == IMAGENET_MEAN
    server.files.clear()
    assert "fetching" not in done("import-weights", "lraspp_mobilenet_v3_large")


def test_a_download_that_is_something_else_is_a_failed_check(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, monkeypatch, "lraspp_mobilenet_v3_large", lraspp(21))
    server.files = dict.fromkeys(server.files, b"another file")
    assert "its sha256 is" in refused("import-weights", "lraspp_mobilenet_v3_large", code=3)


def test_without_a_network_the_way_around_it_is_named(server: Served) -> None:
    line = refused("import-weights", "resnet50")
    assert "fetch https://download.pytorch.org/models/resnet50-0676ba61.pth elsewhere and put it into " in line


def test_a_published_file_is_known_by_its_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(random_weights(classifier_names("mobilenet_v2"), 1), "weights-v2.pth")
    from dlv3deploy.train.weights import published

    entry = replace(PUBLISHED["mobilenet_v2-v2"], sha256=sha256_of(path))
    monkeypatch.setattr(published, "_FILES", (entry,))
    done("import-weights", path)
    assert Path("artifacts/backbones/mobilenet_v2-v2.safetensors").is_file()


def test_the_list_names_everything_that_is_published() -> None:
    result = dlv3deploy("import-weights", "--list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(PUBLISHED)
    assert lines[0] == "segmentation, COCO train2017, VOC's 21 classes; BSD-3-Clause (torchvision):"
    assert lines[1].split() == ["deeplabv3_resnet50", "168.3", "MB", "42.0", "M", "parameters", "mIoU", "0.664"]
    assert lines[5] == "backbone, ImageNet, 1000 classes; BSD-3-Clause (torchvision):"


# --- what is refused -------------------------------------------------------------------------------------------------


def test_nothing_to_import_is_bad_usage() -> None:
    result = dlv3deploy("import-weights")
    assert result.exit_code == 2 and "give a file or a name" in result.stderr


def test_what_is_neither_a_file_nor_a_name() -> None:
    meant = refused("import-weights", "mobilnet_v2")
    assert "did you mean mobilenet_v2, mobilenet_v2-v2 or mobilenet_v3_large? dlv3deploy import-weights --list" in meant
    assert "published weights; dlv3deploy import-weights --list" in refused("import-weights", "vgg")
    assert "absent.pth: does not exist" in refused("import-weights", "absent.pth")
    Path("folder.pth").mkdir()
    assert "folder.pth: is a folder" in refused("import-weights", "folder.pth")


class Touch:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.system, ("touch it-ran",)


def test_a_pickle_with_code_is_refused_and_does_not_run() -> None:
    torch.save({"model_state": lraspp(), "best_score": Touch()}, "w.pth")
    line = refused("import-weights", "w.pth")
    assert "is no readable state dict (it asks for posix.system, which is no tensor)" in line
    assert not Path("it-ran").exists()


def test_a_checkpoint_of_this_program_is_refused() -> None:
    write_lively_checkpoint(Path("own.safetensors"), SMALL)
    assert "dlv3deploy export own.safetensors" in refused("import-weights", "own.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["model", "backbone"])
def test_weights_that_are_not_finite_are_a_failed_check(value: float, kind: str) -> None:
    weights = lraspp() if kind == "model" else random_weights(classifier_names("mobilenet_v2"), 1)
    name = "backbone.7.block.0.0.weight" if kind == "model" else "features.7.conv.0.0.weight"
    weights[name][3] = value
    assert "is not finite; nothing was written" in refused("import-weights", saved(weights), code=3)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--classes", "voc"], "tells 5 classes apart"),
        (["--classes", "nonsense"], "is neither a known set nor a file"),
        (["--output-stride", 12], "output stride 12: is none of 8, 16, 32"),
        (["--aspp-rates", "1,2"], "are 2, w.pth has 3 atrous branches"),
        (["--aspp-rates", "1,x,3"], "is no list of whole numbers"),
        (["--aspp-rates", "0,1,2"], "is no list of whole numbers"),
        (["--size", "100x100"], "a side is a multiple of the output stride 16, or one more"),
        (["--size", "big"], "is no HEIGHTxWIDTH"),
        (["--mean", "0.4,0.4,0.4"], "is in units of 0 to 1"),
        (["--std", "1,0,1"], "pixels are divided by it"),
        (["--to", "model.pth"], "is no checkpoint's name"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: list[object], problem: str) -> None:
    path = saved(random_weights(vainf_names("mobilenet_v2", False, 8, 5), 1))
    assert problem in refused("import-weights", path, *options)


def test_atrous_rates_for_a_head_without_any_are_refused() -> None:
    assert "LR-ASPP has no atrous rates" in refused("import-weights", saved(lraspp()), "--aspp-rates", "6,12,18")


def test_an_unusual_number_of_branches_needs_its_rates() -> None:
    from published_names import backbone_names, below, head_names

    names = below("backbone", backbone_names("mobilenet_v2")) | below("classifier", head_names(320, 8, 5, rates=4))
    path = saved(random_weights(names, 1))
    assert "has 4 atrous branches, and no file says their rates" in refused("import-weights", path)
    done("import-weights", path, "--aspp-rates", "6,12,18,24")
    architecture = checkpoint_facts(Path("artifacts/model.safetensors")).spec.architecture
    assert architecture == Architecture("mobilenet_v2", 16, (6, 12, 18, 24), 8)


def test_a_backbone_takes_no_description() -> None:
    path = saved(random_weights(classifier_names("mobilenet_v2"), 1))
    assert "is a mobilenet_v2 backbone, which has no classes" in refused("import-weights", path, "--classes", "voc")


def test_a_model_with_a_tensor_too_many_is_refused_by_name() -> None:
    weights = random_weights(torchvision_names("mobilenet_v3_large", 8, 5), 1) | {"extra.weight": torch.zeros(1)}
    assert "has extra.weight as well" in refused("import-weights", saved(weights))


def test_a_workspace_that_cannot_be_written_is_refused() -> None:
    Path("artifacts").write_bytes(json.dumps({}).encode())
    assert "could not be written" in refused("import-weights", saved(lraspp()))
