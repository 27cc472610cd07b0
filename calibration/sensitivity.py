"""How much of the error in the scores each INT8 convolution causes by itself.

One convolution at a time is INT8, weights and input, everything else float; the noise power in the scores over the signal's is
its sensitivity. Small errors of different layers add up nearly as independent noise, so the sum of all sensitivities predicts
the noise of the whole network, and leaving a layer in float takes its own share away. That holds where every layer was
rounded by itself, not where it makes good for others (`sequential`): there it is no fault of its own that it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlv3deploy.calibration.fidelity import Fidelity
from dlv3deploy.calibration.int8_network import Quantisation
from dlv3deploy.calibration.network import Conv
from dlv3deploy.calibration.placement import Placement
from dlv3deploy.calibration.quantize import quantized
from dlv3deploy.core.progress import tracked

if TYPE_CHECKING:
    from onnx import ModelProto


@dataclass(frozen=True)
class Sensitivity:
    """`noise` is noise power over signal power when this convolution alone is INT8, `macs` its multiply-accumulates."""

    conv: str
    noise: float
    macs: int

    @property
    def noise_per_mac(self) -> float:
        return self.noise / max(1, self.macs)


def sensitivities(quantisation: Quantisation, judge: Callable[[ModelProto], Fidelity]) -> list[Sensitivity]:
    """Of every INT8 convolution, those first whose float form buys the most accuracy for its multiply-accumulates."""
    inside = [conv for conv in quantisation.float_network.convs if conv.name in quantisation.placement.weights]
    found = []
    for conv in tracked(inside, "one convolution in INT8", len(inside)):
        fidelity = judge(_alone_in_int8(quantisation, conv))
        found.append(Sensitivity(conv.name, 10 ** (-fidelity.snr_db / 10), quantisation.float_network.macs(conv)))
    return sorted(found, key=lambda s: (-s.noise_per_mac, s.conv))


def _alone_in_int8(quantisation: Quantisation, conv: Conv) -> ModelProto:
    """The float network with Q/DQ pairs on this convolution's input and weights alone: those of residual sums and
    concatenations, which no convolution answers for, would add the same noise to every figure."""
    rounded = {name: quantisation.network.weights[name] for name in (conv.weight, conv.bias)}
    placement = Placement({conv.name: (conv.input,)}, {conv.name: conv.weight}, (), ())
    network = quantisation.float_network.with_weights(rounded)
    return quantized(network.model, placement, quantisation.ranges, quantisation.weight_steps)
