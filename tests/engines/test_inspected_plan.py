"""The plan that an engine's inspector tells.

An inspector needs a GPU: here its JSON is written by hand, in the published form of TensorRT 10 (a real one is in issue 4020 of
its repository) and of TensorRT 11. With a GPU `test_backends.py` asks a real engine.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.engines.plans.inspected import read_engine_information
from dlv3deploy.engines.plans.plan import Kernel, Tensor

INT8_FORMAT = "Thirty-two wide channel vectorized row major Int8 format"


def tensor(name: str, shape: list[int], kind: str) -> dict[str, Any]:
    return {"Name": name, "Location": "Device", "Dimensions": shape, "Format/Datatype": kind}


CONVOLUTION = {
    "Name": "conv + relu",
    "LayerType": "CaskConvolution",
    "Inputs": [tensor("x8", [1, 64, 56, 56], INT8_FORMAT)],
    "Outputs": [tensor("y8", [1, 32, 56, 56], INT8_FORMAT)],
    "ParameterType": "Convolution",
    "Weights": {"Type": "Int8", "Count": 18432},
    "Bias": {"Type": "Float", "Count": 32},
    "Metadata": "[ONNX Layer: conv]\x1e[ONNX Layer: relu]",
}
REFORMAT = {
    "Name": "Reformatting CopyNode",
    "LayerType": "Reformat",
    "Inputs": [tensor("x", [1, 64, 56, 56], "Row major linear FP32")],
    "Outputs": [tensor("x8", [1, 64, 56, 56], INT8_FORMAT)],
    "Metadata": "",
}


def information(*layers: Any) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["x", "y"]})


def test_layers_become_kernels_with_their_weights_and_nodes() -> None:
    plan = read_engine_information(information(REFORMAT, CONVOLUTION), "builder")
    assert plan.kernels[1] == Kernel(
        "conv + relu",
        "CaskConvolution",
        (Tensor("x8", (1, 64, 56, 56), "Int8"),),
        (Tensor("weights", (18432,), "Int8"), Tensor("bias", (32,), "Float")),
        (Tensor("y8", (1, 32, 56, 56), "Int8"),),
        ("conv", "relu"),
    )
    assert (plan.convolutions, plan.others) == (1, 1)
    assert plan.macs == 18432 * 56 * 56
    assert plan.bytes_moved == 64 * 56 * 56 * (4 + 1) + (64 + 32) * 56 * 56


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("Channel major FP16 format where channel % 8 == 0", "Half"),
        ("Row major linear BFloat16 format", "BFloat16"),
        ("Row major linear FP32", "Float"),
        ("Half", "Half"),
        ("Row major Int64 format", "Int64"),
        ("Four wide channel vectorized row major Int8 format", "Int8"),
    ],
)
def test_types_stand_in_words(written: str, kind: str) -> None:
    layer = {**REFORMAT, "Inputs": [tensor("x", [1, 2], written)]}
    assert read_engine_information(information(layer), "builder").kernels[0].inputs[0].type == kind


def test_a_type_of_its_own_and_constants_as_since_tensorrt_11() -> None:
    layer = {
        **CONVOLUTION,
        "LayerType": "correlation",
        "Inputs": [{"Name": "x", "Dimensions": [1, 8, 4, 6], "Datatype": "Half", "Format": "(NHWC) Channel major format"}],
        "Constants": [{"Name": "w", "Dimensions": [4, 8, 1, 1], "Datatype": "Half", "Format": "(Linear)"}],
        "Weights": {"Type": "Half", "Count": 0},
        "Bias": None,
    }
    (kernel,) = read_engine_information(information(layer, {"Name": "__wait", "LayerType": "wait"}), "builder").kernels
    assert kernel.inputs == (Tensor("x", (1, 8, 4, 6), "Half"),)
    assert kernel.constants == (Tensor("w", (4, 8, 1, 1), "Half"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "form that cannot be read"),
        ("{}", "form that cannot be read"),
        (json.dumps({"Layers": ["conv + relu"]}), "by name; build the engine again"),
        (json.dumps({"Layers": []}), "by name; build the engine again"),
        (information({**REFORMAT, "Inputs": [tensor("x", [1], "Row major Complex128")]}), "unknown type: Row major Complex128"),
        (information({"Name": "x", "LayerType": "Reformat"}), "a layer in a form"),
    ],
)
def test_another_form_is_an_error_and_no_wrong_figure(text: str, says: str) -> None:
    with pytest.raises(CheckFailed, match=f"builder 9 .*{says}"):
        read_engine_information(text, "builder 9")
