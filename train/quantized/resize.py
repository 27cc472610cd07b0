"""ONNX's Resize of maps, linear or nearest, by each of its coordinate rules: torch knows two of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dlv3deploy.train.quantized.node import Node

RULES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def resize(node: Node, inputs: Sequence[Tensor | None]) -> Tensor:
    """N×C×h×w to another height and width. Raises UserError for a mode or rule that is not known here."""
    node.require("coordinate_transformation_mode", *RULES)
    node.require("mode", "linear", "nearest")
    node.require("antialias", 0)
    node.require("exclude_outside", 0)
    node.require("keep_aspect_ratio_policy", "stretch")
    node.require("axes", [2, 3])
    x, scales, sizes = inputs[0], *(inputs[i] if i < len(inputs) else None for i in (2, 3))
    assert x is not None and (scales is not None or sizes is not None)  # the checker has seen the file
    rule, mode = node.settings.get("coordinate_transformation_mode", "half_pixel"), node.settings.get("mode", "nearest")
    if sizes is not None:
        outputs = [int(size) for size in sizes.tolist()[-2:]]
        ratios = [size / given for size, given in zip(outputs, x.shape[2:], strict=True)]
        if mode == "linear" and rule in ("half_pixel", "align_corners"):
            return interpolate(x, tuple(outputs), mode="bilinear", align_corners=rule == "align_corners")
    else:
        assert scales is not None
        ratios = [float(ratio) for ratio in scales.tolist()[-2:]]
        outputs = [math.floor(given * ratio) for given, ratio in zip(x.shape[2:], ratios, strict=True)]
    for axis, (size, ratio) in enumerate(zip(outputs, ratios, strict=True), 2):
        places = _places(size, x.shape[axis], ratio, rule)
        if mode == "linear":
            x = _between(x, axis, places)
        else:
            rounding = node.settings.get("nearest_mode", "round_prefer_floor")
            x = x.index_select(axis, _nearest(places, rounding, x.shape[axis]).to(x.device))
    return x


def _places(size: int, given: int, ratio: float, rule: str) -> Tensor:
    """For each output the place in the input that it reads, float64."""
    outputs = torch.arange(size, dtype=torch.float64)
    if rule == "align_corners":
        return outputs * ((given - 1) / (size - 1) if size > 1 else 0.0)
    if rule == "asymmetric":
        return outputs / ratio
    if rule == "pytorch_half_pixel" and size == 1:
        return torch.zeros_like(outputs)
    return (outputs + 0.5) / ratio - 0.5


def _between(x: Tensor, axis: int, places: Tensor) -> Tensor:
    places = places.clamp(0, x.shape[axis] - 1)
    low = places.floor().long()
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    share = (places - low).to(x.dtype).reshape(shape).to(x.device)
    return x.index_select(axis, low.to(x.device)) * (1 - share) + x.index_select(axis, high.to(x.device)) * share


def _nearest(places: Tensor, mode: str, given: int) -> Tensor:
    rounded = {
        "round_prefer_floor": (places - 0.5).ceil(),
        "round_prefer_ceil": (places + 0.5).floor(),
        "floor": places.floor(),
        "ceil": places.ceil(),
    }[mode]
    return rounded.long().clamp(0, given - 1)
