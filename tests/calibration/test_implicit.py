"""The scales of implicit INT8: every tensor that the graph without pairs holds has one, and it cuts nothing off."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from calibration_graphs import Graph, noise
from tiny_models import HEIGHT, WIDTH, GraphWriter, tiny_deeplab

from dlv3deploy.calibration.implicit import ImplicitFiles, tensor_scales
from dlv3deploy.calibration.int8_network import Quantisation
from dlv3deploy.calibration.method import Method
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.quantisation import Calibration
from dlv3deploy.calibration.trt_cache import read_cache
from dlv3deploy.core.graph import load_onnx

QMAX = 127


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return noise(3, (HEIGHT, WIDTH), seed=4)()


@pytest.fixture(scope="module")
def quantisation(images) -> Quantisation:
    return Calibration(Network.prepared(tiny_deeplab(), HEIGHT, WIDTH), lambda: images).quantise(Method())


def test_what_only_an_activation_reads_has_the_scale_of_its_result(quantisation) -> None:
    scales = tensor_scales(quantisation)
    assert scales["inner"] == scales["inner.relu"] == quantisation.ranges["inner.relu"].step()


def test_an_addend_without_a_pair_has_the_sum_of_the_others_scales(quantisation) -> None:
    scales = tensor_scales(quantisation)
    assert "outer" not in quantisation.ranges
    assert scales["outer"] == pytest.approx(scales["stem.relu"] + scales["joined"])


def test_a_constant_that_is_added_has_no_scale() -> None:
    """Its other side has one, because a convolution reads it too, and the sum has one."""
    writer = GraphWriter()
    features = writer.relu(writer.conv("image", "features", (4, 3, 3, 3)))
    shifted = writer.node("Add", [features, writer.weight("shift", np.ones((1, 4, 1, 1), np.float32))], "shifted")
    both = [writer.conv(name, f"of.{name}", (2, 4, 1, 1)) for name in (features, shifted)]
    model = writer.model(writer.node("Concat", both, "scores", axis=1), 17)
    found = Calibration(Network.prepared(model, HEIGHT, WIDTH), noise(1, (HEIGHT, WIDTH))).quantise(Method())
    assert found.ranges.keys() == {"image", features, shifted}
    assert "shift" not in tensor_scales(found)


def test_no_convolution_s_output_is_without_a_scale_but_the_network_s_and_what_stays_in_floating_point(quantisation) -> None:
    convs = {node.output[0] for node in quantisation.network.nodes if node.op_type == "Conv"}
    assert convs - tensor_scales(quantisation).keys() == {"scores", "pooled"}


def test_no_value_is_cut_off_that_changes_a_result(quantisation, images) -> None:
    """min-max ranges and positive results: what lies below a ReLU's range is zero behind it anyway."""
    model = onnx.ModelProto()
    model.CopyFrom(quantisation.network.model)
    scales = tensor_scales(quantisation)
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in scales if name != "image")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for image in images:
        for name, values in zip(names, session.run(names, {"image": image}), strict=True):
            assert name not in scales or values.max() <= QMAX * scales[name] * 1.02  # weights are rounded here


def test_the_cache_holds_the_scales_and_the_graph_no_pairs(quantisation, tmp_path) -> None:
    files = ImplicitFiles.beside(tmp_path / "plain.onnx")
    files.write(quantisation, "a calibration")
    assert not {node.op_type for node in load_onnx(files.graph).graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    found = read_cache(files.cache).scales
    assert found == {name: np.float32(scale) for name, scale in tensor_scales(quantisation).items()}


def test_files_know_the_calibration_that_they_were_written_together_for(quantisation, tmp_path) -> None:
    files = ImplicitFiles.beside(tmp_path / "plain.onnx")
    assert not files.are_of("first")
    files.write(quantisation, "first")
    assert files.are_of("first") and not files.are_of("second")
    cache, graph = files.cache.read_bytes(), files.graph.read_bytes()
    files.write(quantisation, "second", "8.6.1")
    assert files.are_of("second")
    files.graph.write_bytes(graph)  # as where a run ended between the two
    assert not files.are_of("first") and not files.are_of("second")
    files.cache.write_bytes(cache)
    assert files.are_of("first")
    files.graph.write_bytes(graph[:100])
    assert not files.are_of("first")


def test_a_bound_for_every_channel_keeps_the_scale_as_relu6_does() -> None:
    writer = Graph()
    stem = writer.relu6(writer.conv("image", "stem", (6, 3, 3, 3)))
    model = writer.network(writer.conv(writer.relu6(writer.conv(stem, "deep", (6, 1, 3, 3), groups=6)), "scores", (4, 6, 1, 1)))
    found = Calibration(model, noise(2)).quantise(Method(equalise=True, clips=True))
    assert "Min" in {node.op_type for node in found.network.nodes}
    scales = tensor_scales(found)
    for conv in ("stem", "deep"):
        assert scales[conv] == found.ranges[f"{conv}.relu6"].step()
