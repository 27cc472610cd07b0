"""What to do about a convolution that costs much: a cause read from its facts, and a remedy that the method has not used yet.

Causes are looked for in the order of how surely their remedy works. A layer for which none is left can stay in floating point;
what that brings was measured.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from glob import escape
from typing import Any

from dlv3deploy.calibration.layer_facts import LayerFacts
from dlv3deploy.calibration.method import Method
from dlv3deploy.calibration.tensor_facts import TensorFacts
from dlv3deploy.calibration.weights import PER_CHANNEL

FEW_STEPS = 16  # of 127, for half of the channels: less than 5 bits
FEW_IMAGES = 32
SHIFT_SHARE = 0.25  # of a layer's own error
CLEARLY_DB = 3.0  # twice the error
WORTH_DB = 0.3  # 7 % of the error
MUCH_DB = 1.0


@dataclass(frozen=True)
class Advice:
    """`change` is the method that the remedy asks for, None where it asks for none."""

    cause: str
    remedy: str
    change: Method | None = None


@dataclass(frozen=True)
class Advised:
    """An INT8 convolution, what is advised, and what its return to floating point brings in the scores."""

    layer: LayerFacts
    advice: Advice
    gain_db: float


def advise(layer: LayerFacts, tensor: TensorFacts, method: Method, gain_db: float) -> Advice:
    """For an INT8 convolution, its input tensor, and what its return to floating point brings in the scores."""
    causes = [*_causes(layer, tensor, method), Advice(_amplified(layer, tensor), "")]
    found = next((cause for cause in causes if cause.remedy), causes[0])
    parts = [found.remedy] if found.remedy else []
    if round(gain_db, 1) >= WORTH_DB:
        parts.append(
            f"alone in floating point ({kept(layer)}) it brings {gain(gain_db)} for {layer.macs_share:.1%} of the work"
        )
    else:
        does = "take" if round(gain_db, 1) < 0 else "bring"
        parts.append(f"leave it in INT8: alone in floating point it would {does} {gain(abs(gain_db)).lstrip('+')}")
    return replace(found, remedy="; ".join(parts))


def _causes(layer: LayerFacts, tensor: TensorFacts, method: Method) -> Iterator[Advice]:
    """Every cause that the facts show, the one whose remedy is surest first; without a remedy where that is in use already."""
    if layer.grid is None or layer.alone is None:
        return
    steps, from_input, from_weights = layer.grid.typical_steps, layer.grid.input_snr_db, layer.grid.weights_snr_db
    if tensor.shares_with and 0 < 2 * tensor.largest < tensor.threshold:
        times, others = tensor.threshold / tensor.largest, len(tensor.shares_with)
        cause = f"its input shares a grid with {others} tensors, of which one reaches {times:.3g} times further"
        yield _changed(method, cause, equalise=True)
    if steps < FEW_STEPS:
        cause = f"half of its input's channels use fewer than {max(1, round(steps))} of 127 steps; "
        cause += f"channel {layer.grid.widest_channel} reaches furthest"
        yield _changed(method, cause, equalise=True)
    if layer.alone.shift_share > SHIFT_SHARE:
        cause = f"{layer.alone.shift_share:.0%} of its own error is a shift of its channels' means"
        yield _changed(method, cause, bias=True)
    if tensor.best_snr_db > tensor.snr_db + CLEARLY_DB and from_input < from_weights + CLEARLY_DB:
        rare = f"{tensor.saturated:.2%} of its input saturates" if tensor.saturation_noise > 0.5 else "rare values set its grid"
        cause = f"{rare}; the threshold of least error holds it {tensor.best_snr_db - tensor.snr_db:.0f} dB better"
        yield _changed(method, cause, observer="mse")
    if from_weights < from_input:
        cause = f"rounding its weights costs more ({from_weights:.0f} dB) than its input's grid ({from_input:.0f} dB)"
        if method.grid.per_tensor:
            yield Advice(cause, "give every output channel a step of its own: --weights per-channel")
        if method.grid.bits < PER_CHANNEL.bits:
            yield Advice(cause, "give the weights more bits: --weight-bits")
        yield _changed(method, cause, bias=True, rounding=True)
    rings = layer.alone.rings
    if rings and rings[0].snr_db < rings[-1].snr_db - CLEARLY_DB:
        behind, taps = rings[-1].snr_db - rings[0].snr_db, rings[0].valid_taps
        cause = f"at the border, with {taps:.1f} valid taps, its error is {behind:.0f} dB larger than in the middle"
        yield Advice(cause, "") if method.observer == "min-max" else _changed(method, cause, valid_taps=True)


def _changed(method: Method, cause: str, **steps: Any) -> Advice:
    change = replace(method, **steps)
    return Advice(cause, "") if change == method else Advice(cause, f"try --method {name_of(change)}", change)


def gain(decibels: float) -> str:
    """A difference of two ratios, such as `+1.2 dB`."""
    return f"{decibels:+.1f} dB".replace("-", "−") if abs(decibels) >= 0.05 else "0.0 dB"


def kept(layer: LayerFacts) -> str:
    """The option that keeps a layer in floating point, as a shell takes it."""
    return f"--keep-fp16 {shlex.quote(escape(layer.name))}"


def name_of(method: Method) -> str:
    """As `--method` takes it."""
    return str(replace(method, grid=PER_CHANNEL))


def _amplified(layer: LayerFacts, tensor: TensorFacts) -> str:
    if layer.grid is not None and layer.grid.input_snr_db < tensor.snr_db - CLEARLY_DB:
        return (
            f"its output is a small difference of large inputs: the error of its input's grid, {tensor.snr_db:.0f} dB below "
            f"the input, is {layer.grid.input_snr_db:.0f} dB below the output"
        )
    return "its grids are as good as 8 bits allow, and the layers behind it pass its error on"


def overall_advice(images: int, method: Method, costly: Sequence[Advised], together_db: float) -> list[str]:
    """What to do about the whole; `together_db` is what all costly layers in floating point bring."""
    found = []
    changes = [each.advice.change for each in costly if each.advice.change is not None]
    if changes:
        merged = method
        for change in changes:
            new = {name: value for name, value in vars(change).items() if value != getattr(method, name)}
            merged = replace(merged, **new)
        found.append(f"one run with what the costly layers ask for: --method {name_of(merged)}")
    best = max(costly, key=lambda each: each.gain_db, default=None)
    if best is not None and best.gain_db >= MUCH_DB:
        layer = best.layer
        found.append(f"{kept(layer)} brings {gain(best.gain_db)} for {layer.macs_share:.1%} of the work in floating point")
    if together_db >= WORTH_DB:
        macs_share = sum(each.layer.macs_share for each in costly)
        found.append(f"all costly layers in floating point, {macs_share:.1%} of the work, bring {gain(together_db)}")
    if images < FEW_IMAGES:
        few = "one image is" if images == 1 else f"{images} images are"
        found.append(f"{few} few: ranges and means grow steadier up to about a hundred (--calibration-images)")
    if sum(each.layer.noise_share for each in costly) < 0.5:
        found.append("the error is spread over many layers: no few of them in floating point would remove it")
    return found
