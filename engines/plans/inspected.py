"""The plan of an engine that is there, as TensorRT's `IEngineInspector` describes it in JSON.

Needs an engine built with detailed profiling verbosity. A layer has a name, a type, inputs and outputs; a convolution has its
filters as `Weights` with a type and a count. A tensor's type stands in words (`Format/Datatype`: "Channel major FP16 format
where channel % 8 == 0", "Half"), or as `Datatype` since TensorRT 11.
"""

from __future__ import annotations

import json
from typing import Any

from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.engines.plans.plan import BITS, Kernel, Plan, Tensor
from dlv3deploy.engines.plans.printed import NO_KERNEL, nodes_of

WORDS = {  # in this order: "BF16" contains no other, "FP16" is no "BF16"
    "bf16": "BFloat16",
    "bfloat16": "BFloat16",
    "fp16": "Half",
    "half": "Half",
    "fp32": "Float",
    "float": "Float",
    "fp8": "FP8",
    "uint8": "UInt8",
    "int8": "Int8",
    "int64": "Int64",
    "int32": "Int32",
    "int4": "Int4",
    "bool": "Bool",
}


def read_engine_information(text: str, builder: str) -> Plan:
    """The plan in the JSON of `get_engine_information`. Raises CheckFailed when there is none, or only names of layers."""
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckFailed(f"{builder} described its engine in a form that cannot be read ({error})") from error
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        raise CheckFailed(f"{builder} knows no more than its engine's layers by name; build the engine again")
    kernels = tuple(_kernel(layer, builder) for layer in layers if str(layer.get("LayerType")).lower() not in NO_KERNEL)
    return Plan(kernels)


def _kernel(layer: dict[str, Any], builder: str) -> Kernel:
    try:
        constants = [_tensor(constant, builder) for constant in layer.get("Constants", ())]
        for key in ("Weights", "Bias"):
            if (held := layer.get(key)) and held["Count"]:
                constants.append(Tensor(key.lower(), (int(held["Count"]),), _type(held["Type"], builder)))
        inputs, outputs = (tuple(_tensor(tensor, builder) for tensor in layer[key]) for key in ("Inputs", "Outputs"))
        nodes, remark = nodes_of(layer.get("Metadata", ""))
        return Kernel(layer["Name"], layer["LayerType"], inputs, tuple(constants), outputs, nodes, remark)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckFailed(f"{builder} described a layer in a form that cannot be read ({error}): {layer}") from error


def _tensor(tensor: dict[str, Any], builder: str) -> Tensor:
    written = tensor.get("Datatype") or tensor["Format/Datatype"]
    return Tensor(tensor["Name"], tuple(int(size) for size in tensor["Dimensions"]), _type(written, builder))


def _type(text: str, builder: str) -> str:
    if text in BITS:
        return text
    words = text.lower().replace("-", " ").split()
    for word, kind in WORDS.items():
        if word in words:
            return kind
    raise CheckFailed(f"{builder} described a tensor of unknown type: {text}")
