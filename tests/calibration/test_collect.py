from __future__ import annotations

import sys
import weakref

import numpy as np
import pytest
from calibration_graphs import Graph, noise, quantized_deeplab, run
from onnx import TensorProto, helper
from tiny_models import HEIGHT, WIDTH, tiny_deeplab

from dlv3deploy.calibration.collect import Runner, observe
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import fix_input

pytest.importorskip("onnxruntime")


class Seen:
    """Keeps copies of what it is shown."""

    def __init__(self) -> None:
        self.values: list[np.ndarray] = []

    def collect(self, values: np.ndarray) -> None:
        self.values.append(values.copy())


@pytest.fixture(scope="module")
def model():
    return fix_input(tiny_deeplab(), (1, 3, HEIGHT, WIDTH))


def test_every_observer_sees_its_tensor_of_every_image_in_order(model) -> None:
    images = noise(3, (HEIGHT, WIDTH))()
    observers = {name: [Seen(), Seen()] for name in ("image", "stem.relu", "branches", "scores")}
    assert observe(model, images, observers) == 3
    for name, (one, two) in observers.items():
        assert len(one.values) == len(two.values) == 3
        for image, value, again in zip(images, one.values, two.values, strict=True):
            wanted = image if name == "image" else run(model, image, name)[0]
            np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(value, again)


def test_without_an_image_it_says_how_to_give_some(model) -> None:
    with pytest.raises(UserError, match="--images"):
        observe(model, [], {"stem": [Seen()]})


@pytest.mark.parametrize("count", [4, 40])
def test_one_images_activations_are_in_memory_however_many_there_are(model, count: int) -> None:
    alive: list[weakref.ref] = []
    most = 0

    class Counter:
        def collect(self, values: np.ndarray) -> None:
            nonlocal most
            alive.append(weakref.ref(values))
            most = max(most, sum(ref() is not None for ref in alive))

    def images():
        for seed in range(count):
            yield noise(1, (HEIGHT, WIDTH), seed)()[0]

    observe(model, images(), {name: [Counter()] for name in ("image", "stem.relu", "scores")})
    assert len(alive) == 3 * count
    assert most <= 2 * 3  # of this image, and of the one before until its names are taken


def test_only_what_leads_to_a_tensor_is_run(model) -> None:
    """A part behind it that would fail does no harm."""
    with Runner(model, ["stem.relu"]) as runner:
        names = [output.name for output in runner.session.get_outputs()]
    assert names == ["stem.relu"]
    with Runner(model, ["image"]) as runner:
        (image,) = noise(1, (HEIGHT, WIDTH))()
        np.testing.assert_array_equal(runner(image)["image"], image)
        assert runner.session is None


def test_what_the_branches_of_an_if_read_leads_to_its_output() -> None:
    def branch(name: str, source: str) -> helper.GraphProto:
        result = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, *Graph().size])
        return helper.make_graph([helper.make_node("Identity", [source], [name])], name, [], [result])

    graph = Graph()
    first, second = (graph.relu(graph.conv("image", name, (4, 3, 3, 3))) for name in ("first", "second"))
    total = graph.node("ReduceSum", ["image"], "total", keepdims=0)
    positive = graph.node("Greater", [total, graph.constant(0)], "positive")
    chosen = graph.node("If", [positive], "chosen", then_branch=branch("a", first), else_branch=branch("b", second))
    network = graph.network(graph.conv(chosen, "last", (2, 4, 1, 1)))
    image = np.ones((1, 3, *graph.size), np.float32)
    with Runner(network.model, ["chosen"]) as runner:
        for given, wanted in ((image, first), (-image, second)):
            np.testing.assert_allclose(runner(given)["chosen"], run(network.model, given, wanted)[0], rtol=1e-5, atol=1e-6)


def test_a_graph_that_the_runtime_refuses_is_one_line(model) -> None:
    broken = type(model)()
    broken.CopyFrom(model)
    broken.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(UserError, match="cannot be run by ONNX Runtime") as refused:
        Runner(broken, ["scores"])
    assert "\n" not in str(refused.value)


def test_an_image_of_another_size_is_one_line(model) -> None:
    with Runner(model, ["stem"]) as runner, pytest.raises(UserError, match="cannot be run by ONNX Runtime"):
        runner(np.zeros((1, 3, 8, 8), np.float32))


def test_a_runtime_that_is_not_installed_is_named_with_what_brings_it(model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"dlv3deploy\[onnxruntime\]"):
        Runner(model, ["stem"])


def test_pairs_run_as_they_are_written_when_asked_for() -> None:
    """The runtime would otherwise put an INT8 kernel in their place, of another arithmetic on every machine."""
    model = quantized_deeplab()
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    with Runner(model, ["scores"], exact=True) as runner:
        (image,) = noise(1, (HEIGHT, WIDTH))()
        np.testing.assert_array_equal(runner(image)["scores"], run(model, image)[0])
