"""A calibrated file as a torch module: the same scores, the same form when it is written again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_runs import runtime_scores, torch_scores
from quantized_files import batch_of, calibrated, changed, images_of, tiny_calibrated, write_shallow
from tiny_models import write_tiny

from dlv3deploy.calibration.weights import WeightGrid
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.graph import embedded_spec
from dlv3deploy.core.spec import OutputSpec
from dlv3deploy.train.quantized import parity
from dlv3deploy.train.quantized.parity import check_nodes
from dlv3deploy.train.quantized.quantized_graph import QuantizedGraph

Files = Callable[[Path, Path], Path]
FILES: dict[str, Files] = {
    "as it is": tiny_calibrated,
    "equalised": lambda folder, data: tiny_calibrated(folder, data, "mse+equalise+bias+rounding"),
    "per tensor": lambda folder, data: tiny_calibrated(folder, data, grid=WeightGrid(per_tensor=True)),
    "4 bits": lambda folder, data: tiny_calibrated(folder, data, grid=WeightGrid(4)),
    "partly float": lambda folder, data: tiny_calibrated(folder, data, keep=("atrous", "outer")),
    "opset 13": lambda folder, data: calibrated(folder, data, write_tiny(folder / "model.onnx", opset=13)),
    "ReLU6 with bounds": lambda folder, data: calibrated(
        folder, data, write_shallow(folder / "model.onnx"), "min-max+equalise+clips"
    ),
    "dynamic size": lambda folder, data: calibrated(folder, data, write_shallow(folder / "model.onnx", dynamic=True)),
    "logits": lambda folder, data: calibrated(folder, data, write_shallow(folder / "model.onnx", output=OutputSpec("logits"))),
}


def moved(graph: QuantizedGraph, seed: int = 0) -> QuantizedGraph:
    """Every parameter somewhere else, as after training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in graph.named_parameters():
            parameter += torch.randn_like(parameter) * (0.1 if name.endswith("growth") else 0.7)
    return graph


def as_onnx_runtime(graph: QuantizedGraph, model: onnx.ModelProto, images: list[Path]) -> None:
    spec = embedded_spec(model, "file")
    for image in images:
        wanted = runtime_scores(model, batch_of(image, spec))
        np.testing.assert_allclose(torch_scores(graph, batch_of(image, spec)), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", FILES)
def test_the_module_gives_the_files_scores_and_the_file_that_it_writes_the_modules(
    kind: str, few_scenes: Path, tmp_path: Path
) -> None:
    model, images = onnx.load(str(FILES[kind](tmp_path, few_scenes))), images_of(few_scenes)[:2]
    graph = QuantizedGraph(model)
    as_onnx_runtime(graph, model, images)
    written = moved(graph).written_into(model)
    onnx.checker.check_model(written, full_check=True)
    as_onnx_runtime(graph, written, images)
    as_onnx_runtime(QuantizedGraph(written), written, images)
    before, after = (torch_scores(QuantizedGraph(m), batch_of(images[0], embedded_spec(m, ""))) for m in (model, written))
    assert np.abs(before - after).max() > 0.01  # something did move


def test_nodes_names_and_zero_points_stay(few_scenes: Path, tmp_path: Path) -> None:
    model = onnx.load(str(tiny_calibrated(tmp_path, few_scenes)))
    written = moved(QuantizedGraph(model)).written_into(model)
    assert list(written.graph.node) == list(model.graph.node)
    assert [w.name for w in written.graph.initializer] == [w.name for w in model.graph.initializer]
    kinds = {w.name: (tuple(w.dims), w.data_type) for w in model.graph.initializer}
    assert {w.name: (tuple(w.dims), w.data_type) for w in written.graph.initializer} == kinds
    zero_points = [numpy_helper.to_array(w) for w in written.graph.initializer if w.name.endswith("zero_point")]
    assert zero_points and not any(values.any() for values in zero_points)


def test_written_weights_lie_on_their_grids_and_never_at_minus_128(few_scenes: Path, tmp_path: Path) -> None:
    for grid, end in ((WeightGrid(), 127), (WeightGrid(4), 7)):
        model = onnx.load(str(tiny_calibrated(tmp_path, few_scenes, grid=grid)))
        graph = QuantizedGraph(model)
        with torch.no_grad():
            for weights in graph.weights:
                weights.moved += 300 * torch.randn_like(weights.moved)
        arrays = {w.name: numpy_helper.to_array(w) for w in graph.written_into(model).graph.initializer}
        integers = arrays["inner.weight"] / arrays["inner.weight/scale"].reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(integers, np.rint(integers), atol=1e-4)
        assert integers.min() == pytest.approx(-end) and integers.max() == pytest.approx(end)


def test_what_is_kept_in_floating_point_stays_as_it_is(few_scenes: Path, tmp_path: Path) -> None:
    model = onnx.load(str(FILES["partly float"](tmp_path, few_scenes)))
    written = moved(QuantizedGraph(model)).written_into(model)
    before, after = ({w.name: numpy_helper.to_array(w) for w in m.graph.initializer} for m in (model, written))
    for name in ("atrous.weight", "atrous.bias", "outer.weight", "pooled.weight", "pooled.bias"):
        np.testing.assert_array_equal(before[name], after[name])
    assert not np.array_equal(before["inner.bias"], after["inner.bias"])


def test_steps_around_a_concat_and_a_max_pool_stay_one_step(few_scenes: Path, tmp_path: Path) -> None:
    model = onnx.load(str(tiny_calibrated(tmp_path, few_scenes)))
    steps = moved(QuantizedGraph(model)).steps()
    concat, pool = ("pointwise.relu", "atrous.relu", "spread", "branches"), ("joined.relu", "features")
    for group in (concat, pool):
        assert len({steps[name] for name in group}) == 1
    assert len(set(steps.values())) == len(steps) - len(concat) - len(pool) + 2


def test_every_learned_number_gets_a_gradient(few_scenes: Path, tmp_path: Path) -> None:
    graph = moved(QuantizedGraph(onnx.load(str(tiny_calibrated(tmp_path, few_scenes)))))
    graph(torch.from_numpy(batch_of(images_of(few_scenes)[0]))).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in graph.parameters())
    silent = [name for name, p in graph.named_parameters() if not p.grad.any()]
    assert silent == []


def test_images_in_a_batch_are_computed_as_if_alone(few_scenes: Path, tmp_path: Path) -> None:
    graph = QuantizedGraph(onnx.load(str(tiny_calibrated(tmp_path, few_scenes))))
    alone = [batch_of(image) for image in images_of(few_scenes)[:3]]
    together = torch_scores(graph, np.concatenate(alone))
    np.testing.assert_allclose(together, np.concatenate([torch_scores(graph, b) for b in alone]), atol=1e-4)


def test_node_by_node_the_file_is_what_onnx_runtime_computes(
    few_scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(str(calibrated(tmp_path, few_scenes, write_shallow(tmp_path / "model.onnx"))))
    batches = [batch_of(image, embedded_spec(model, "")) for image in images_of(few_scenes)[:2]]
    found = check_nodes(QuantizedGraph(model), model, batches)
    assert found.difference < 2e-6 and found.runtime.startswith("ONNX Runtime")
    assert found.nodes == sum(node.op_type != "QuantizeLinear" for node in model.graph.node)
    monkeypatch.setattr(parity, "BYTES_AT_ONCE", 1)  # every node in a group of its own
    assert check_nodes(QuantizedGraph(model), model, batches[:1]).nodes == found.nodes


@pytest.mark.parametrize(
    ("part", "says"),
    [("inner.weight/scale", "inner.weight/dequantize"), ("stem.relu/scale", "stem.relu/dequantize"), ("outer.bias", "outer")],
)
def test_a_module_that_is_not_the_files_is_named_by_its_node(few_scenes: Path, tmp_path: Path, part: str, says: str) -> None:
    path = tiny_calibrated(tmp_path, few_scenes)
    graph = QuantizedGraph(onnx.load(str(path)))
    changed(path, part, lambda values: values * np.float32(1.01))
    with pytest.raises(CheckFailed, match=says):
        check_nodes(graph, onnx.load(str(path)), [batch_of(images_of(few_scenes)[0])])


def test_forms_that_calibration_does_not_write_are_refused(few_scenes: Path, tmp_path: Path) -> None:
    path = tiny_calibrated(tmp_path, few_scenes)
    whole = path.read_bytes()
    with pytest.raises(UserError, match="has no Q/DQ pairs"):
        QuantizedGraph(onnx.load(str(tmp_path / "model.onnx")))
    changed(path, "stem.relu/zero_point", lambda values: values + 3)
    with pytest.raises(UserError, match="QuantizeLinear stem.relu/quantize: is not symmetric INT8"):
        QuantizedGraph(onnx.load(str(path)))
    path.write_bytes(whole)
    model = onnx.load(str(path))
    next(n for n in model.graph.node if n.name == "stem.relu/dequantize").input[1] = "image/scale"
    with pytest.raises(UserError, match="DequantizeLinear stem.relu/dequantize: has no QuantizeLinear of the same step"):
        QuantizedGraph(model)
    model = onnx.load(str(path))
    next(n for n in model.graph.node if n.name == "inner").input[0] = "stem.relu"
    with pytest.raises(UserError, match="Conv inner: has INT8 weights without an INT8 input"):
        QuantizedGraph(model)
    model = onnx.load(str(path))
    scale = next(w for w in model.graph.initializer if w.name == "stem.relu/scale")
    scale.CopyFrom(numpy_helper.from_array(np.ones(8, np.float32), scale.name))
    with pytest.raises(UserError, match="has steps per channel of what is no weight"):
        QuantizedGraph(model)


def test_an_unknown_operator_is_refused_before_anything_runs(few_scenes: Path, tmp_path: Path) -> None:
    model = onnx.load(str(tiny_calibrated(tmp_path, few_scenes)))
    model.graph.node.append(helper.make_node("Softmax", ["scores"], ["shares"], name="shares"))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("shares", TensorProto.FLOAT, [1, None, None, None]))
    with pytest.raises(UserError, match="Softmax shares: is of an operator that is not known here"):
        QuantizedGraph(model)
