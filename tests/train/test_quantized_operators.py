"""Every operator of a calibrated graph against ONNX Runtime, and what is not known refused by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_runs import runtime_scores, torch_scores

from dlv3deploy.core.errors import UserError
from dlv3deploy.train.quantized.graph import TorchGraph
from dlv3deploy.train.quantized.operators import OPERATORS

HEIGHT, WIDTH = 9, 12


@dataclass(frozen=True)
class Case:
    """One operator on an image, with constants behind it; `before` are nodes that make its first input, `then` what follows."""

    kind: str
    constants: tuple[NDArray[Any] | None, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    opset: int = 17
    before: tuple[str, ...] = ()
    then: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.opset} {self.settings} {[None if c is None else c.shape for c in self.constants]}"


def model_of(case: Case, batch: int = 1) -> onnx.ModelProto:
    names = [f"constant{i}" if values is not None else "" for i, values in enumerate(case.constants)]
    weights = [numpy_helper.from_array(v, n) for v, n in zip(case.constants, names, strict=True) if v is not None]
    nodes, given = [], "image"
    for kind in case.before:
        nodes.append(helper.make_node(kind, [given], [f"{given}.{kind}"], name=kind))
        given = f"{given}.{kind}"
    made = "made" if case.then else "result"
    inputs = [*names] if case.kind in ("ConstantOfShape", "Constant") else [given, *names]
    nodes.append(helper.make_node(case.kind, inputs, [made], name="under test", **case.settings))
    if case.then:
        nodes.append(helper.make_node(case.then, ["image", made], ["result"], name="then"))
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [None] * 4)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=8)


def numbers(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def whole(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def resize(
    mode: str, rule: str, *, sizes: tuple[int, int] | None = None, scales: tuple[float, float] | None = None, **more: Any
):
    settings = {"mode": mode, "coordinate_transformation_mode": rule, **more}
    if sizes:
        return Case("Resize", (None, None, whole(1, 3, *sizes)), settings)
    assert scales
    return Case("Resize", (None, np.array([1, 1, *scales], np.float32)), settings)


RULES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
CASES = [
    Case("Add", (numbers(1, 3, 1, 1),)),
    Case("Sub", (numbers(3, 1, 1),)),
    Case("Mul", (numbers(1, 3, 1, 1),)),
    Case("Div", (numbers(1, 3, 1, 1),)),
    Case("Min", (numbers(1, 3, 1, 1), numbers(1, seed=2))),
    Case("Max", (numbers(1, 3, 1, 1),)),
    Case("Relu"),
    Case("Sigmoid"),
    Case("HardSwish"),
    Case("HardSigmoid"),
    Case("HardSigmoid", settings={"alpha": 1 / 6, "beta": 0.4}),
    Case("Identity"),
    Case("Clip", (np.float32(0), np.float32(0.6)), opset=13),
    Case("Clip", (None, np.float32(0.2))),
    Case("Clip"),
    Case("Conv", (numbers(4, 3, 3, 3), numbers(4))),
    Case("Conv", (numbers(4, 3, 3, 3),), {"pads": [2, 2, 2, 2], "dilations": [2, 2], "strides": [2, 2]}),
    Case("Conv", (numbers(3, 1, 3, 3), numbers(3)), {"pads": [0, 1, 2, 1], "group": 3, "auto_pad": "NOTSET"}),
    Case("Conv", (numbers(2, 3, 1, 3), numbers(2)), {"pads": [0, 6, 0, 6], "dilations": [1, 6]}),
    Case("MaxPool", settings={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("MaxPool", settings={"kernel_shape": [2, 3], "pads": [0, 0, 1, 2], "dilations": [2, 1]}),
    Case("AveragePool", settings={"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("AveragePool", settings={"kernel_shape": [3, 2], "pads": [1, 0, 0, 1], "count_include_pad": 1}),
    Case("AveragePool", settings={"kernel_shape": [2, 2]}),
    Case("GlobalAveragePool"),
    Case("ReduceMean", settings={"axes": [2, 3]}),
    Case("ReduceMean", settings={"axes": [-1]}),
    Case("ReduceMean", (whole(2, 3),), opset=18),
    Case("Concat", (numbers(1, 2, HEIGHT, WIDTH),), {"axis": 1}),
    Case("Tile", (whole(1, 2, 1, 3),)),
    Case("Expand", (whole(1, 1, 4, 5),), before=("GlobalAveragePool",)),
    Case("Expand", (whole(1, 1, 1),)),
    Case("ConstantOfShape", (whole(3, 1, 1),), {"value": numpy_helper.from_array(np.array([2.5], np.float32))}, then="Mul"),
    Case("ConstantOfShape", (whole(1, 3, 1, 1),), then="Add"),
    Case("Constant", settings={"value": numpy_helper.from_array(numbers(3, 1, 1))}, then="Add"),
    Case("Slice", (whole(1, 2), whole(100, -1), whole(2, -1), whole(2, 1))),
    Case("Slice", (whole(0, 0), whole(1, 2))),
    Case("Gather", (whole(2, -3),), {"axis": 1}),
    Case("Cast", settings={"to": TensorProto.FLOAT}),
    *(resize("linear", rule, sizes=(17, 31)) for rule in RULES),
    *(resize("linear", rule, scales=(2.3, 0.6)) for rule in RULES),
    *(resize("linear", rule, sizes=(1, 5)) for rule in RULES),
    *(resize("nearest", rule, sizes=(14, 7)) for rule in RULES),
    *(
        resize("nearest", "half_pixel", scales=(2.5, 0.75), nearest_mode=mode)
        for mode in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
]
SHAPES = {"Shape", "Unsqueeze", "Squeeze"}  # in `sizes_of_a_dynamic_export`


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_operator_computes_what_onnx_runtime_computes(case: Case) -> None:
    model, image = model_of(case), numbers(1, 3, HEIGHT, WIDTH, seed=0)
    wanted, found = runtime_scores(model, image), torch_scores(TorchGraph(model), image)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def sizes_of_a_dynamic_export() -> onnx.ModelProto:
    """Pooled features spread over the map, whose size is asked of the image as dynamic exports do."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Gather", ["shape", "two"], ["height"], axis=0),
        helper.make_node("Unsqueeze", ["height", "zero"], ["heights"]),
        helper.make_node("Shape", ["image"], ["width"], start=3),
        helper.make_node("Squeeze", ["width", "zero"], ["plain width"]),
        helper.make_node("Squeeze", ["width"], ["same width"]),
        helper.make_node("Min", ["plain width", "same width"], ["least width"]),
        helper.make_node("Unsqueeze", ["least width", "zero"], ["widths"]),
        helper.make_node("Cast", ["widths"], ["as float"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["as float"], ["widths again"], to=TensorProto.INT64),
        helper.make_node("Slice", ["shape", "zero", "two as list"], ["first"]),
        helper.make_node("Div", ["widths again", "five"], ["fewer"]),
        helper.make_node("Concat", ["first", "heights", "fewer"], ["all"], axis=0),
        helper.make_node("Expand", ["mean", "all"], ["result"]),
    ]
    constants = {"zero": whole(0), "two": np.array(2), "two as list": whole(2), "five": whole(5)}
    graph = helper.make_graph(
        nodes,
        "sizes",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("shape", [(1, 3, HEIGHT, WIDTH), (2, 3, 6, 11)], ids=str)
def test_sizes_are_computed_as_onnx_runtime_does(shape: tuple[int, int, int, int]) -> None:
    model, images = sizes_of_a_dynamic_export(), numbers(*shape)
    wanted = runtime_scores(model, images)
    assert wanted.shape == (*shape[:3], shape[3] // 5)
    np.testing.assert_allclose(torch_scores(TorchGraph(model), images), wanted, atol=1e-6)


def test_every_operator_is_compared() -> None:
    assert {case.kind for case in CASES} | SHAPES == set(OPERATORS)


def test_images_in_a_batch_are_computed_as_if_alone() -> None:
    """Graphs are written for one image: what they spread or resize has a first dimension of 1."""
    images = numbers(2, 3, HEIGHT, WIDTH)
    for case in CASES:
        if case.kind in ("Resize", "Tile", "Expand", "ReduceMean", "AveragePool") or case.then:
            graph = TorchGraph(model_of(case))
            alone = np.concatenate([torch_scores(graph, image[None]) for image in images])
            np.testing.assert_allclose(torch_scores(graph, images), alone, atol=1e-6, err_msg=str(case))


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (Case("Erf"), "Erf under test: is of an operator that is not known here"),
        (Case("LeakyRelu"), "LeakyRelu under test"),
        (resize("cubic", "half_pixel", sizes=(3, 3)), "Resize under test: has mode cubic"),
        (resize("linear", "tf_crop_and_resize", sizes=(3, 3)), "coordinate_transformation_mode tf_crop_and_resize"),
        (Case("MaxPool", settings={"kernel_shape": [2, 2], "ceil_mode": 1}), "MaxPool under test: has ceil_mode 1"),
        (Case("Conv", (numbers(4, 3, 3, 3),), {"auto_pad": "SAME_UPPER"}), "Conv under test: has auto_pad SAME_UPPER"),
        (Case("Cast", settings={"to": TensorProto.FLOAT16}), "Cast under test: has to 10"),
        (Case("Slice", (whole(5), whole(0), whole(2), whole(-1))), "Slice under test: has step -1"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused_by_its_name(case: Case, says: str) -> None:
    with pytest.raises(UserError, match="cannot be fine-tuned") as refusal:
        torch_scores(TorchGraph(model_of(case)), numbers(1, 3, HEIGHT, WIDTH))
    assert says in str(refusal.value)


def test_an_operation_with_several_results_is_refused() -> None:
    model = model_of(Case("MaxPool", settings={"kernel_shape": [2, 2]}))
    model.graph.node[0].output.append("places")
    with pytest.raises(UserError, match="MaxPool under test: has 2 results"):
        TorchGraph(model)
