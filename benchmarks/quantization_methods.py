"""The rows of the quantisation table, by the names that `--methods` takes.

`ort:…` and `modelopt:…` are the peers', `ours:METHOD[@per-tensor][@4-bit][@all-int8]` is any METHOD of `dlv3deploy calibrate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from dlv3deploy.calibration.method import STEPS
from dlv3deploy.core.errors import UserError

Maker = Literal["float", "ort", "modelopt", "ours"]
ABLATION = ("min-max", *accumulate(("mse", *STEPS), lambda method, step: f"{method}+{step}"))
EVERYTHING = ABLATION[-1]


@dataclass(frozen=True)
class Method:
    """`method` in the words of whoever makes the model; weights have a scale for each channel unless `per_tensor`."""

    maker: Maker
    method: str = ""
    per_tensor: bool = False
    weight_bits: int = 8
    float_bias: bool = False
    all_int8: bool = False
    by_image: bool = False

    @property
    def marks(self) -> dict[str, str]:
        """What is set, in the words of `--methods` and of the table."""
        known = {
            "per-tensor": (self.per_tensor, "per-tensor weights"),
            "4-bit": (self.weight_bits == 4, "4-bit weights"),
            "float-bias": (self.float_bias, "float biases"),
            "all-int8": (self.all_int8, "image pooling too"),
            "by-image": (self.by_image, "image by image"),
        }
        return {mark: title for mark, (is_set, title) in known.items() if is_set}

    @property
    def name(self) -> str:
        return "@".join((f"{self.maker}:{self.method}", *self.marks)) if self.maker != "float" else "fp32"

    @property
    def title(self) -> str:
        if self.maker == "float":
            return "FP32"
        makers = {"ort": "ONNX Runtime", "modelopt": "ModelOpt", "ours": "dlv3deploy"}
        return ", ".join((f"{makers[self.maker]} {self.method}", *self.marks.values()))

    @property
    def folder(self) -> str:
        return self.name.replace(":", "-").replace("@", "-")


FLOAT = Method("float")
# ONNX Runtime's histograms (1.32) keep all activations of all images, unless `CalibStridedMinMax`, documented for min-max, has
# them collected in portions. The entropy calibrator has 128 bins for 128 levels: of all images at once its one candidate is the
# full range, which is min-max; image by image the histogram grows with the range, and there is a choice.
PEERS = (
    Method("ort", "min-max"),
    Method("ort", "min-max", float_bias=True),
    Method("ort", "percentile"),
    Method("ort", "entropy"),
    Method("ort", "percentile", by_image=True),
    Method("ort", "entropy", by_image=True),
    Method("ort", "min-max", per_tensor=True),
    Method("modelopt", "max"),
    Method("modelopt", "entropy"),
)
OURS = (
    *(Method("ours", method) for method in (*ABLATION, "auto")),
    Method("ours", "auto", all_int8=True),
    *(Method("ours", method, per_tensor=True) for method in ("min-max", "auto")),
    *(Method("ours", method, weight_bits=4) for method in ("min-max", EVERYTHING, "auto")),
)
ALL = (*PEERS, *OURS)
_STEP_BY_STEP = {Method("ours", method) for method in ABLATION[1:]}
_AT_ONCE = {Method("ort", "percentile"), Method("ort", "entropy")}
_OTHER_WEIGHTS = {method for method in ALL if method.per_tensor or method.weight_bits < 8}
FOR_HARD_MODELS = tuple(method for method in ALL if method not in _STEP_BY_STEP | _AT_ONCE | _OTHER_WEIGHTS)


def parse_methods(text: str) -> tuple[Method, ...]:
    """`all`, or names and groups (`ort`, `modelopt`, `ours`) with commas between them. Raises UserError."""
    chosen: dict[Method, None] = {}
    for name in text.split(","):
        chosen |= dict.fromkeys(_named(name.strip()))
    return tuple(chosen)


def _named(name: str) -> tuple[Method, ...]:
    found = tuple(method for method in ALL if name in ("all", method.maker, method.name))
    if found or name == FLOAT.name:  # which is always measured
        return found
    maker, _, rest = name.partition(":")
    method, *marks = rest.split("@")
    if maker == "ours" and method and set(marks) <= {"per-tensor", "4-bit", "all-int8"}:
        bits = 4 if "4-bit" in marks else 8
        return (Method("ours", method, "per-tensor" in marks, bits, all_int8="all-int8" in marks),)
    listed = ", ".join(("all", "ort", "modelopt", "ours", *(peer.name for peer in PEERS)))
    raise UserError(f"method {name!r}", "is unknown", f"use some of {listed}, ours:METHOD[@per-tensor][@4-bit][@all-int8]")
