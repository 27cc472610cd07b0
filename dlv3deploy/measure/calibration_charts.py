"""The charts of a calibration report: error along the network, error by distance from the border, histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dlv3deploy.calibration.layer_facts import LayerFacts
from dlv3deploy.calibration.output_error import Ring
from dlv3deploy.calibration.tensor_facts import TensorFacts
from dlv3deploy.measure.charts import Chart, Line, Scale, Tick, polyline, scales, stairs

HIGHEST_DB = 70.0  # beyond it nobody sees an error; a layer without any counts as 200


def noise_chart(layers: Sequence[LayerFacts], width: float = 1120, height: float = 170) -> Chart:
    """Each layer's share of the error in the scores, in the graph's order."""
    highest = max([layer.noise_share for layer in layers], default=0.0) or 1.0
    x, y = scales(width, height, (0.5, len(layers) + 0.5), (0, highest))
    bars = [
        stairs([number + 0.6, number + 1.4], [layer.noise_share], x, y)
        for number, layer in enumerate(layers)
        if layer.noise_share
    ]
    ticks = tuple(
        Tick(tick.place, f"{float(tick.text):.0%}" if highest > 0.04 else f"{float(tick.text):.1%}") for tick in y.ticks(4)
    )
    return Chart(
        width,
        height,
        "share of the error in the scores by layer",
        "layer",
        "share",
        _numbers(len(layers), x.ticks(12)),
        ticks,
        areas=(Line("share", "".join(bars)),),
    )


def depth_chart(layers: Sequence[LayerFacts], width: float = 1120, height: float = 230) -> Chart:
    """The signal-to-noise ratio of every layer's output along the network: by itself, and with all that came before."""
    together = [(number + 1.0, _shown(layer.accumulated.snr_db)) for number, layer in enumerate(layers)]
    alone = [(number + 1.0, _shown(layer.alone.snr_db)) for number, layer in enumerate(layers) if layer.alone]
    x, y = scales(width, height, (0.5, len(layers) + 0.5), _range([value for _, value in [*together, *alone]]))
    lines = (Line("alone", polyline(alone, x, y)), Line("accumulated", polyline(together, x, y)))
    label = "signal-to-noise ratio of every layer's output"
    return Chart(width, height, label, "layer", "dB", _numbers(len(layers), x.ticks(12)), y.ticks(5), lines=lines)


def border_chart(layer: LayerFacts, width: float = 340, height: float = 210) -> Chart:
    """An atrous layer's signal-to-noise ratio by distance from the border, over the share of its taps that are valid there."""
    rings = layer.accumulated.rings
    own = layer.alone.rings if layer.alone else ()
    furthest = max([ring.furthest for ring in rings], default=0)
    x, y = scales(width, height, (-0.5, furthest + 0.5), _range([_shown(ring.snr_db) for ring in (*rings, *own)]))
    taps = layer.kernel[0] * layer.kernel[1]
    edges = [ring.nearest - 0.5 for ring in rings] + [furthest + 0.5]
    heights = [y.low + (y.high - y.low) * ring.valid_taps / taps for ring in rings]
    lines = (Line("alone", _by_distance(own, x, y)), Line("accumulated", _by_distance(rings, x, y)))
    label = f"{layer.name}: signal-to-noise ratio by distance from the border"
    whole = tuple(tick for tick in x.ticks(6) if float(tick.text).is_integer())
    return Chart(
        width,
        height,
        label,
        "distance from the border",
        "dB",
        whole,
        y.ticks(4),
        lines=lines,
        areas=(Line("taps", stairs(edges, heights, x, y)),),
    )


def histogram(tensor: TensorFacts, width: float = 340, height: float = 150) -> Chart:
    """Magnitudes with a logarithmic height, and the threshold beyond which they saturate."""
    edges = [i * tensor.bar_width for i in range(len(tensor.counts) + 1)]
    heights = [math.log10(1 + count) for count in tensor.counts]
    x, y = scales(width, height, (0, max(edges[-1], tensor.threshold) * 1.02), (0, max(heights) * 1.08 or 1.0))
    ticks = tuple(Tick(y(power), f"1e{power}") for power in range(0, math.floor(y.high) + 1, max(1, math.ceil(y.high / 4))))
    return Chart(
        width,
        height,
        f"magnitudes of {tensor.name} on a logarithmic scale",
        "magnitude",
        "values",
        x.ticks(5),
        ticks,
        areas=(Line("bars", stairs(edges, heights, x, y)),),
        mark=Tick(x(tensor.threshold), "threshold"),
    )


def _by_distance(rings: Sequence[Ring], x: Scale, y: Scale) -> str:
    return polyline([((ring.nearest + ring.furthest) / 2, _shown(ring.snr_db)) for ring in rings], x, y)


def _shown(snr_db: float) -> float:
    return min(HIGHEST_DB, max(-10.0, snr_db))


def _range(values: Sequence[float]) -> tuple[float, float]:
    """A little more than the values span, and at least 6 dB, so that noise does not fill a chart."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    missing = max(0.0, 6 - (high - low)) / 2
    margin = 0.08 * max(6.0, high - low)
    return low - missing - margin, high + missing + margin


def _numbers(count: int, ticks: Sequence[Tick]) -> tuple[Tick, ...]:
    """Ticks that are numbers of layers."""
    return tuple(tick for tick in ticks if float(tick.text).is_integer() and 1 <= float(tick.text) <= count)
