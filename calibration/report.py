"""The calibration report: what INT8 costs at every convolution, what each tensor's grid holds, and what would help.

Both networks run side by side over images, one image at a time. The float one is `Quantisation.float_network`, which has the
same channel factors as the INT8 one, so that their inner tensors are the same quantities. An error inside says little about the
scores, which some layers pass on and others absorb. So each convolution's share of *their* error is measured too
(`sensitivity.py`), and those with the largest are returned to floating point one by one: what that brings is no guess. Layers
that were rounded one after another (`sequential`) make good for each other, and one that is taken out would be missed; there
the same layers, each rounded by itself, tell what it costs and brings.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dlv3deploy.calibration.advice import Advised, advise, overall_advice
from dlv3deploy.calibration.collect import Runner
from dlv3deploy.calibration.fidelity import Fidelity, Judge, ScoreError
from dlv3deploy.calibration.int8_network import Quantisation
from dlv3deploy.calibration.layer_facts import LayerFacts, LayerWatch
from dlv3deploy.calibration.sensitivity import sensitivities
from dlv3deploy.calibration.side_by_side import alone, channel_maxima, on_its_grid, side_by_side
from dlv3deploy.calibration.tensor_facts import TensorFacts, tensor_facts
from dlv3deploy.core.progress import tracked

MOST_COSTLY = 5  # convolutions whose return to floating point is tried
SENSITIVITY_IMAGES = 2  # which layers cost most is the same on any image, and every convolution is a run of its own


@dataclass(frozen=True)
class CostlyLayer:
    """A convolution that makes much of the error. In floating point it changes the scores by `gain_db` and `agreement_gain` (−1
    to 1); `cause` says why it costs, `remedy` what to do."""

    name: str
    noise_share: float
    macs_share: float
    gain_db: float
    agreement_gain: float
    cause: str
    remedy: str


@dataclass(frozen=True)
class CalibrationReport:
    """`layers` in the graph's order, `costly` those worst first, `costly_in_float` the scores with all of them in floating
    point; `one_by_one`, which that is held against, has all layers in INT8, each rounded by itself. `images` were calibrated
    on, errors measured on `judged_images` of them."""

    method: str
    images: int
    judged_images: int
    fidelity: Fidelity
    one_by_one: Fidelity
    layers: tuple[LayerFacts, ...]
    tensors: tuple[TensorFacts, ...]
    costly: tuple[CostlyLayer, ...]
    costly_in_float: Fidelity
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values: shares 0 to 1, ratios in decibels, everything finite."""
        return asdict(self)


def layer_report(quantisation: Quantisation, judge: Judge, images: int, by_itself: Quantisation) -> CalibrationReport:
    """The report on an INT8 network, on the judge's images and against its float scores. `by_itself` is the same with every
    layer rounded by itself, and the very same where that is how it was made.

    Memory is that of one image's convolution outputs, four times. Raises CheckFailed when scores are not finite.
    """
    fidelity, layers = _compared(quantisation, judge, _noise_shares(by_itself, judge))
    one_by_one = fidelity if by_itself is quantisation else judge(by_itself.model())
    tensors = _tensors(quantisation)
    inside = sorted((layer for layer in layers if layer.int8), key=lambda layer: -layer.noise_share)
    worst = inside[: min(MOST_COSTLY, len(inside) - 1)]  # a model without any INT8 convolution would be none
    costly, advised = [], []
    for layer in tracked(worst, "trying convolutions in floating point", len(worst)):
        kept = judge(by_itself.keeping({layer.name}).model())
        gain_db, agreement_gain = kept.snr_db - one_by_one.snr_db, kept.agreement - one_by_one.agreement
        advice = advise(layer, tensors[layer.input], quantisation.method, gain_db)
        advised.append(Advised(layer, advice, gain_db))
        shares = layer.noise_share, layer.macs_share
        costly.append(CostlyLayer(layer.name, *shares, gain_db, agreement_gain, advice.cause, advice.remedy))
    together = judge(by_itself.keeping([layer.name for layer in worst]).model())
    overall = overall_advice(images, quantisation.method, advised, together.snr_db - one_by_one.snr_db)
    return CalibrationReport(
        str(quantisation.method),
        images,
        len(judge.batches),
        fidelity,
        one_by_one,
        layers,
        tuple(tensors.values()),
        tuple(sorted(costly, key=lambda layer: (-max(0.0, layer.gain_db), -layer.noise_share))),
        together,
        tuple(overall),
    )


def _compared(quantisation: Quantisation, judge: Judge, shares: dict[str, float]) -> tuple[Fidelity, tuple[LayerFacts, ...]]:
    plain, convs = quantisation.float_network, quantisation.float_network.convs
    watches = {conv.name: LayerWatch(conv, quantisation) for conv in convs}
    inside = [conv for conv in convs if watches[conv.name].int8]
    steps = {name: covered.step() for name, covered in quantisation.ranges.items()}
    outputs = [conv.output for conv in convs]
    extra = [name(conv) for conv in inside for name in (alone, on_its_grid, channel_maxima)]
    scores = ScoreError()
    with (
        Runner(side_by_side(plain, quantisation.network, inside, steps), _once([*outputs, *extra])) as float_runner,
        Runner(quantisation.model(), _once([*outputs, judge.output]), exact=True) as int8_runner,
    ):
        batches = tracked(judge.batches, "comparing convolutions", len(judge.batches))
        for batch, wanted_scores in zip(batches, judge.wanted, strict=True):
            wanted, found = float_runner(batch), int8_runner(batch)
            scores.collect(wanted_scores, found[judge.output])
            for conv in convs:
                watches[conv.name].accumulated.collect(wanted[conv.output], found[conv.output])
            for conv in inside:
                beside = [wanted[name(conv)] for name in (alone, on_its_grid, channel_maxima)]
                watches[conv.name].collect_alone(wanted[conv.output], *beside)
    return scores.compute(), tuple(watch.compute(shares.get(name, 0.0)) for name, watch in watches.items())


def _once(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _noise_shares(quantisation: Quantisation, judge: Judge) -> dict[str, float]:
    """Every INT8 convolution's share of the error that all make in the scores one by one."""
    few = judge.on_fewer(SENSITIVITY_IMAGES)
    noise = {entry.conv: entry.noise for entry in sensitivities(quantisation, few)}
    total = sum(noise.values())
    return {name: value / total for name, value in noise.items()}


def _tensors(quantisation: Quantisation) -> dict[str, TensorFacts]:
    partners = {name: group - {name} for group in quantisation.placement.shared for name in group}
    return {
        name: tensor_facts(name, quantisation.seen[name], covered, partners.get(name, frozenset()))
        for name, covered in quantisation.ranges.items()
    }
