"""Export: the ONNX file computes what PyTorch computes, says what it is, and does not take its place when it does not."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from small_runs import SIZE, SMALL, lively_model, shallow_model, small_spec, write_lively_checkpoint
from torch import nn

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.graph import embedded_spec, load_onnx
from dlv3deploy.core.spec import OutputKind, OutputSpec
from dlv3deploy.train import export as export_module
from dlv3deploy.train.checkpoint import load_checkpoint, save_checkpoint
from dlv3deploy.train.export import OPSETS, ExportChoices, check_parity, export, parity_batches

KINDS: tuple[OutputKind, ...] = ("scores", "logits", "mask")


def run_onnx(model: onnx.ModelProto, batch: NDArray[np.float32]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": batch})[0])


def expected_outputs(model: nn.Module, batch: NDArray[np.float32], kind: OutputKind) -> NDArray[Any]:
    """By the network and torch's own interpolation."""
    with torch.no_grad():
        scores = model(torch.from_numpy(batch))
        if kind == "scores":
            return np.asarray(scores)
        logits = nn.functional.interpolate(scores, batch.shape[2:], mode="bilinear", align_corners=False)
        return np.asarray(logits if kind == "logits" else logits.argmax(1))


def noise(n: int, height: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(n).standard_normal((n, 3, height, width), np.float32)


def assert_computes_the_same(graph: onnx.ModelProto, model: nn.Module, kind: OutputKind, *shapes: tuple[int, int, int]) -> None:
    values: set[float] = set()
    for shape in shapes:
        batch = noise(*shape)
        found, expected = run_onnx(graph, batch), expected_outputs(model, batch, kind)
        assert found.shape == expected.shape
        values |= set(np.unique(expected))
        if kind == "mask":
            assert found.dtype == np.uint8
            assert (found != expected).mean() < 1e-3
        else:
            assert found.dtype == np.float32 and expected.std() > 0.1
            np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(values) > 1


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_survives_every_opset(kind: OutputKind, dynamic: bool, opset: int) -> None:
    model, spec = shallow_model(), replace(small_spec(), output=OutputSpec(kind))
    spec = replace(spec, input=replace(spec.input, dynamic_size=dynamic, dynamic_batch=dynamic))
    graph = export_module.to_onnx(export_module.ExportedModel(model, OutputSpec(kind)).eval(), spec, opset)
    assert {o.domain: o.version for o in graph.opset_import}[""] == opset
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    assert [i.name for i in graph.graph.input] == ["image"] and [o.name for o in graph.graph.output] == [kind]
    shapes = [(1, *SIZE), (3, 80, 49), (2, 33, 128)] if dynamic else [(1, *SIZE)]
    assert_computes_the_same(graph, model, kind, *shapes)


@pytest.mark.parametrize(("kind", "opset"), [("scores", 17), ("logits", 13), ("mask", 11)])
def test_an_exported_checkpoint_computes_what_pytorch_computes(
    lively_checkpoint: Path, tmp_path: Path, kind: OutputKind, opset: int
) -> None:
    path = tmp_path / "model.onnx"
    _, parity = export(lively_checkpoint, path, ExportChoices(kind, dynamic_size=True, dynamic_batch=True, opset=opset))
    assert parity.difference <= parity.tolerance and parity.runtime.startswith("ONNX Runtime")
    graph = load_onnx(path)
    assert "BatchNormalization" not in {node.op_type for node in graph.graph.node}
    assert_computes_the_same(graph, load_checkpoint(lively_checkpoint)[0], kind, (1, *SIZE), (3, 80, 49), (2, 33, 128))


@pytest.mark.parametrize(("choices", "free"), [({"dynamic_batch": True}, {0}), ({"dynamic_size": True}, {2, 3}), ({}, set())])
def test_only_what_was_asked_for_may_change(choices: dict[str, bool], free: set[int]) -> None:
    spec = small_spec()
    spec = replace(spec, input=replace(spec.input, **choices))  # type: ignore[arg-type]  # all of them are bool
    graph = export_module.to_onnx(export_module.ExportedModel(shallow_model(), OutputSpec("scores")).eval(), spec, 17).graph
    image, scores = (port[0].type.tensor_type.shape.dim for port in (graph.input, graph.output))
    assert {axis for axis, d in enumerate(image) if d.dim_param} == free
    assert {axis for axis, d in enumerate(scores) if d.dim_param} == free
    fixed = (1, 3, *SIZE)
    assert all(d.dim_value == fixed[axis] for axis, d in enumerate(image) if axis not in free)


def test_a_resnet_exports_without_its_auxiliary_head(tmp_path: Path) -> None:
    architecture = replace(SMALL, backbone="resnet18", auxiliary=True)
    checkpoint = write_lively_checkpoint(tmp_path / "model.safetensors", architecture)
    export(checkpoint, tmp_path / "model.onnx", ExportChoices())
    graph, (model, _) = load_onnx(tmp_path / "model.onnx"), load_checkpoint(checkpoint)
    assert_computes_the_same(graph, model, "scores", (1, *SIZE))
    stored = sum(int(np.prod(w.dims)) for w in graph.graph.initializer)
    assert stored < sum(p.numel() for part in (model.backbone, model.classifier) for p in part.parameters())


def test_the_spec_in_the_file_says_what_was_exported_from_what(lively_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    spec, _ = export(lively_checkpoint, path, ExportChoices("logits", (80, 65), dynamic_batch=True))
    trained = load_checkpoint(lively_checkpoint)[1]
    assert embedded_spec(load_onnx(path), "") == spec
    assert spec == replace(
        trained,
        input=replace(trained.input, height=80, width=65, dynamic_batch=True),
        output=OutputSpec("logits"),
        parents={"checkpoint": sha256_of(lively_checkpoint)},
    )
    shape = load_onnx(path).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in shape[1:]] == [3, 80, 65]


# The parity check


@pytest.fixture
def old_onnx(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the export of last week")
    return path


def assert_untouched(path: Path) -> None:
    assert path.read_bytes() == b"the export of last week"
    assert not [p for p in path.parent.iterdir() if "partial" in p.name]


def spoiling(spoil: Callable[[nn.Module], None]) -> Callable[..., onnx.ModelProto]:
    """`to_onnx` of a copy of the model that `spoil` was at."""
    import copy

    real = export_module.to_onnx

    def spoilt(model: nn.Module, *rest: Any) -> onnx.ModelProto:
        model = copy.deepcopy(model)
        with torch.no_grad():
            spoil(model)
        return real(model, *rest)

    return spoilt


def a_little_bias(exported: Any) -> None:
    exported.model.classifier[4].bias[0] += 0.01


def one_early_weight(exported: Any) -> None:
    exported.model.backbone.features[1].conv[0][0].weight[0, 0, 1, 1] += 1


def another_rate(exported: Any) -> None:
    convolution = exported.model.classifier[0].convs[1][0]
    convolution.dilation = convolution.padding = (2, 2)


def running_batch_norm(exported: Any) -> None:
    exported.model.backbone.features[3].conv[1][1].running_var *= 1.5


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("scores", a_little_bias),
        ("scores", one_early_weight),
        ("scores", another_rate),
        ("logits", running_batch_norm),
        ("mask", another_rate),
    ],
)
def test_a_graph_that_computes_something_else_is_refused(
    lively_checkpoint: Path,
    old_onnx: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: OutputKind,
    spoil: Callable[[nn.Module], None],
) -> None:
    monkeypatch.setattr(export_module, "to_onnx", spoiling(spoil))
    with pytest.raises(CheckFailed, match="ONNX Runtime .* differs from PyTorch") as raised:
        export(lively_checkpoint, old_onnx, ExportChoices(kind))
    assert raised.value.exit_code == 3
    assert_untouched(old_onnx)


class FrozenPooling(nn.Module):
    """Image pooling whose size was a constant when it was traced."""

    def __init__(self, pooling: nn.Module, height: int, width: int) -> None:
        super().__init__()
        self.layers, self.size = nn.Sequential(*pooling.children()), (height, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.layers(x)
        return pooled.repeat(1, 1, *self.size)


class FrozenBatch(nn.Module):
    """A head that was traced for two images at a time."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(x)
        return torch.stack([scores[0], scores[1]])


def freeze_size(exported: Any) -> None:
    convs = exported.model.classifier[0].convs
    convs[4] = FrozenPooling(convs[4], 4, 6)


def freeze_batch(exported: Any) -> None:
    exported.model.classifier = FrozenBatch(exported.model.classifier)


@pytest.mark.parametrize(
    ("freeze", "choices"),
    [
        (freeze_size, {"dynamic_size": True}),
        (freeze_batch, {"dynamic_batch": True}),
        (freeze_batch, {"dynamic_batch": True, "dynamic_size": True}),
    ],
)
def test_a_trace_that_froze_a_shape_is_refused(
    lively_checkpoint: Path,
    old_onnx: Path,
    monkeypatch: pytest.MonkeyPatch,
    freeze: Callable[[nn.Module], None],
    choices: dict[str, bool],
) -> None:
    monkeypatch.setattr(export_module, "to_onnx", spoiling(freeze))
    with pytest.raises(CheckFailed) as raised:
        export(lively_checkpoint, old_onnx, ExportChoices(**choices))  # type: ignore[arg-type]  # all of them are bool
    assert "\n" not in str(raised.value)
    assert_untouched(old_onnx)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, old_onnx: Path, kind: OutputKind, value: float) -> None:
    model = lively_model()
    model.get_parameter("classifier.1.weight").data[0, 0, 0, 0] = value
    save_checkpoint(tmp_path / "model.safetensors", model, small_spec())
    with pytest.raises(CheckFailed, match="classifier.1.weight holds values that are not finite"):
        export(tmp_path / "model.safetensors", old_onnx, ExportChoices(kind))
    assert_untouched(old_onnx)


def test_scores_that_overflow_are_refused(tmp_path: Path, old_onnx: Path) -> None:
    model = lively_model()
    nn.init.constant_(model.get_parameter("classifier.4.weight"), 3e38)
    save_checkpoint(tmp_path / "model.safetensors", model, small_spec())
    with pytest.raises(CheckFailed, match="PyTorch itself computes values that are not finite"):
        export(tmp_path / "model.safetensors", old_onnx, ExportChoices())
    assert_untouched(old_onnx)


def test_parity_is_tried_on_pictures_of_every_size_and_batch_that_may_come() -> None:
    spec = small_spec()
    shapes = {
        (size, batch): [
            p.shape for p in parity_batches(replace(spec, input=replace(spec.input, dynamic_size=size, dynamic_batch=batch)))
        ]
        for size in (False, True)
        for batch in (False, True)
    }
    assert shapes[False, False] == [(1, 3, 64, 96)]
    assert shapes[True, False] == [(1, 3, 64, 96), (1, 3, 96, 48)]
    assert shapes[False, True] == [(2, 3, 64, 96), (1, 3, 64, 96)]
    assert shapes[True, True] == [(2, 3, 64, 96), (1, 3, 96, 48)]
    first, second = parity_batches(replace(spec, input=replace(spec.input, dynamic_batch=True)))[0]
    assert np.abs(first - second).mean() > 0.1  # two different pictures
    assert 0.3 < first.std() < 3 and abs(first.mean()) < 1.5  # of an image's usual contrast


def test_without_onnxruntime_onnxs_reference_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_onnxruntime(name: str, *rest: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "onnxruntime":
            raise ImportError(name)
        return real(name, *rest)

    model, spec = shallow_model(), replace(small_spec(), output=OutputSpec("logits"))
    exported = export_module.ExportedModel(model, OutputSpec("logits")).eval()
    proto = export_module.to_onnx(exported, spec, 17)
    wrong = spoiling(another_rate)(exported, spec, 17)
    monkeypatch.setattr(builtins, "__import__", no_onnxruntime)
    assert check_parity(exported, proto, spec).runtime == "ONNX's reference evaluator"
    with pytest.raises(CheckFailed, match="reference evaluator differs"):
        check_parity(exported, wrong, spec)


# What is refused before anything is traced


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ((60, 96), "height 60: a side is a multiple of the output stride 16, or one more; use 48 or 49 or 64"),
        ((64, 90), "width 90: .* use 80 or 81 or 96"),
        ((8, 96), "height 8: .* use 16"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_sizes_that_do(
    lively_checkpoint: Path, old_onnx: Path, size: tuple[int, int], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        export(lively_checkpoint, old_onnx, ExportChoices(size=size))
    assert_untouched(old_onnx)


@pytest.mark.parametrize("opset", [0, 10, 21])
def test_an_opset_out_of_range_is_refused(lively_checkpoint: Path, old_onnx: Path, opset: int) -> None:
    with pytest.raises(UserError, match="is outside 11 to 20; 17 suits every backend"):
        export(lively_checkpoint, old_onnx, ExportChoices(opset=opset))
    assert_untouched(old_onnx)
    assert opset not in OPSETS
