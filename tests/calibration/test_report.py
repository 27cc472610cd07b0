"""The calibration report's facts, against NumPy that convolves, rounds and counts by itself."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tiny_models import HEIGHT, WIDTH, GraphWriter, tiny_deeplab

from dlv3deploy.calibration.fidelity import Judge
from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.histogram import Histogram
from dlv3deploy.calibration.int8_network import Quantisation
from dlv3deploy.calibration.method import Method
from dlv3deploy.calibration.network import Network
from dlv3deploy.calibration.quantisation import Calibration
from dlv3deploy.calibration.report import CalibrationReport, layer_report
from dlv3deploy.calibration.report_file import read_report, write_report
from dlv3deploy.calibration.tensor_facts import tensor_facts
from dlv3deploy.core.errors import CheckFailed

pytest.importorskip("onnxruntime")
RATE, STRIDE = 5, 4
PLAIN = Method()
Map = NDArray[np.float64]


def chain() -> onnx.ModelProto:
    """A strided convolution, ReLU, an atrous one, ReLU, a pointwise one."""
    writer = GraphWriter(seed=4)
    first = writer.relu(writer.conv("image", "first", (6, 3, 3, 3), stride=STRIDE))
    atrous = writer.relu(writer.conv(first, "atrous", (5, 6, 3, 3), rate=RATE))
    return writer.model(writer.conv(atrous, "scores", (4, 5, 1, 1)), 17)


def images(count: int = 3) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(7)
    return [random.standard_normal((1, 3, HEIGHT, WIDTH)).astype(np.float32) for _ in range(count)]


def quantise(model: onnx.ModelProto, method: Method = PLAIN) -> Quantisation:
    return Calibration(Network.prepared(model, HEIGHT, WIDTH), images).quantise(method)


def report_on(model: onnx.ModelProto, method: Method = PLAIN, keep: tuple[str, ...] = ()) -> CalibrationReport:
    judge = Judge(Network.prepared(model, HEIGHT, WIDTH).model, images())
    quantisation = quantise(model, method).keeping(keep)
    return layer_report(quantisation, judge, 3, quantisation)


def convolved(image: Map, weight: Map, bias: Map, rate: int = 1, stride: int = 1) -> Map:
    """C×H×W to O×h×w, tap by tap, with padding that keeps the size at stride 1."""
    pad = rate * (weight.shape[2] - 1) // 2
    height, width = (-(-size // stride) for size in image.shape[1:])
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    total = np.zeros((len(weight), height, width)) + bias[:, None, None]
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            read = padded[:, i * rate :: stride, j * rate :: stride][:, :height, :width]
            total += np.einsum("oc,chw->ohw", weight[:, :, i, j], read)
    return total


def held(values: Map, step: float) -> Map:
    return np.clip(np.rint(values / step), -127, 127) * step


def rounded(weight: Map) -> Map:
    steps = np.abs(weight).reshape(len(weight), -1).max(axis=1)[:, None, None, None] / 127
    return np.rint(weight / steps) * steps


@pytest.fixture(scope="module")
def report() -> CalibrationReport:
    return report_on(chain())


@pytest.fixture(scope="module")
def outputs() -> dict[str, list[tuple[Map, Map, Map]]]:
    """For every convolution and image: the float output, that of the layer alone in INT8, that of the INT8 network."""
    model = chain()
    weights = {w.name: onnx.numpy_helper.to_array(w).astype(np.float64) for w in model.graph.initializer}
    settings = {"first": {"stride": STRIDE}, "atrous": {"rate": RATE}, "scores": {}}
    current = [(image[0].astype(np.float64), image[0].astype(np.float64)) for image in images()]
    found: dict[str, list[tuple[Map, Map, Map]]] = {}
    for name, how in settings.items():
        step = max(np.abs(plain).max() for plain, _ in current) / 127
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        found[name] = [
            (
                convolved(plain, weight, bias, **how),
                convolved(held(plain, step), rounded(weight), bias, **how),
                convolved(held(int8, step), rounded(weight), bias, **how),
            )
            for plain, int8 in current
        ]
        current = [(np.maximum(plain, 0), np.maximum(int8, 0)) for plain, _, int8 in found[name]]
    return found


def snr(wanted: Map, found: Map) -> float:
    return 10 * math.log10((wanted**2).sum() / ((found - wanted) ** 2).sum())


def test_signal_to_noise_alone_and_with_all_before(report, outputs) -> None:
    assert [layer.name for layer in report.layers] == ["first", "atrous", "scores"]
    for layer in report.layers:
        wanted, alone, accumulated = (np.stack(maps) for maps in zip(*outputs[layer.name], strict=True))
        assert layer.alone.snr_db == pytest.approx(snr(wanted, alone), abs=0.05)
        assert layer.accumulated.snr_db == pytest.approx(snr(wanted, accumulated), abs=0.2)
    first, atrous, _ = report.layers
    assert first.alone.snr_db == pytest.approx(first.accumulated.snr_db, abs=1e-3), "nothing comes before it"
    assert atrous.accumulated.snr_db < atrous.alone.snr_db


def test_input_and_weights_share_the_error_of_a_layer_between_them(report) -> None:
    for layer in report.layers:
        parts = 10 ** (-layer.grid.input_snr_db / 10) + 10 ** (-layer.grid.weights_snr_db / 10)
        assert parts == pytest.approx(10 ** (-layer.alone.snr_db / 10), rel=0.2)


def test_bias_shift_is_the_mean_error_in_deviations(report, outputs) -> None:
    for layer in report.layers:
        wanted, alone, _ = (np.stack(maps) for maps in zip(*outputs[layer.name], strict=True))
        mean = (alone - wanted).mean(axis=(0, 2, 3))
        shifts = mean / wanted.std(axis=(0, 2, 3))
        worst = int(np.abs(shifts).argmax())
        assert layer.alone.shifted_channel == worst
        assert layer.alone.bias_shift_worst == pytest.approx(shifts[worst], rel=0.02, abs=1e-4)
        assert layer.alone.bias_shift_mean == pytest.approx(np.abs(shifts).mean(), rel=0.02, abs=1e-4)
        share = (mean**2).sum() * wanted[:, 0].size / ((alone - wanted) ** 2).sum()
        assert layer.alone.shift_share == pytest.approx(share, rel=0.05, abs=1e-3)


def test_rings_are_those_of_positions_visited_one_by_one(report, outputs) -> None:
    layer = report.layers[1]
    assert report.layers[0].alone.rings == (), "only atrous layers have them"
    wanted, alone, accumulated = (np.stack(maps) for maps in zip(*outputs["atrous"], strict=True))
    _, _, height, width = wanted.shape
    distance, taps = np.zeros((height, width), int), np.zeros((height, width), int)
    for y in range(height):
        for x in range(width):
            distance[y, x] = min(y, x, height - 1 - y, width - 1 - x)
            reads = [(y + RATE * i, x + RATE * j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            taps[y, x] = sum(0 <= row < height and 0 <= column < width for row, column in reads)
    assert [(ring.nearest, ring.furthest) for ring in layer.alone.rings] == [(d, d) for d in range(8)]
    assert sum(ring.positions for ring in layer.alone.rings) == height * width
    for ring, behind in zip(layer.alone.rings, layer.accumulated.rings, strict=True):
        here = distance == ring.nearest
        assert ring.positions == here.sum()
        assert ring.valid_taps == pytest.approx(taps[here].mean())
        assert ring.snr_db == pytest.approx(snr(wanted[..., here], alone[..., here]), abs=0.1)
        assert behind.snr_db == pytest.approx(snr(wanted[..., here], accumulated[..., here]), abs=0.4)
    assert layer.valid_tap_share == pytest.approx(taps.mean() / 9)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.2])
def test_what_saturates_is_counted(share: float) -> None:
    values = np.maximum(np.random.default_rng(5).standard_normal((1, 4, 50, 60)), 0).astype(np.float32)
    histogram = Histogram("tensor")
    histogram.collect(values)
    covered = Range(0.0, float(values.max()) * share)
    found = tensor_facts("tensor", histogram.compute(), covered)
    bin_width = 2.0 ** math.ceil(math.log2(values.max())) / 4096
    least, most = ((values > covered.high + sign * bin_width).mean() for sign in (1, -1))
    assert least <= found.saturated <= most
    assert (found.saturated == 0) == (share == 1)
    assert (found.low, found.high) == (0, values.max())
    assert found.step == pytest.approx(covered.high / 127)
    error = (held(values, found.step) - values) ** 2
    assert found.snr_db == pytest.approx(snr(values, held(values, found.step)), abs=0.1)
    assert found.saturation_noise == pytest.approx(error[values > covered.high].sum() / error.sum(), abs=0.01)
    steps = np.linspace(values.max() / 8, values.max(), 200) / 127
    assert found.best_snr_db == pytest.approx(max(snr(values, held(values, step)) for step in steps), abs=0.2)


def test_a_histograms_bars_hold_every_value(report, outputs) -> None:
    found = {tensor.name: tensor for tensor in report.tensors}["first.relu"]
    values = np.maximum(np.stack([plain for plain, _, _ in outputs["first"]]), 0)
    edges = np.arange(len(found.counts) + 1) * found.bar_width
    assert 32 <= len(found.counts) <= 64
    assert edges[-2] <= values.max() <= edges[-1]
    expected, _ = np.histogram(values.astype(np.float32), edges)
    assert np.abs(np.array(found.counts) - expected).sum() <= 4, "values on an edge may fall to either side"
    assert sum(found.counts) == values.size


def test_shares_add_up_and_all_is_finite(report) -> None:
    assert sum(layer.macs_share for layer in report.layers) == pytest.approx(1)
    assert sum(layer.noise_share for layer in report.layers) == pytest.approx(1)
    json.dumps(report.to_json(), allow_nan=False)


def test_the_reports_fidelity_is_the_judges(report) -> None:
    quantisation = quantise(chain())
    fidelity = Judge(quantisation.float_network.model, images())(quantisation.model())
    assert report.fidelity.snr_db == pytest.approx(fidelity.snr_db, abs=1e-3)
    assert report.fidelity.agreement == fidelity.agreement
    assert report.judged_images == 3


def damaged(factor: float = 200.0) -> onnx.ModelProto:
    """The same function, with one channel between `inner` and `outer` that is many times larger than the others."""
    model = tiny_deeplab()
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight).copy()
        if weight.name in ("inner.weight", "inner.bias"):
            values[3] *= factor
        elif weight.name == "outer.weight":
            values[:, 3] /= factor
        else:
            continue
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    return model


def test_a_layer_that_is_damaged_on_purpose_is_named_worst_and_its_remedy_works() -> None:
    before = report_on(damaged())
    worst = before.costly[0]
    assert worst.name == "outer"
    assert worst.noise_share > 0.9
    assert worst.gain_db > 10
    assert "channel 3 reaches furthest" in worst.cause
    assert "--method min-max+equalise" in worst.remedy
    assert "--keep-fp16 outer" in worst.remedy
    assert any("--method min-max+equalise" in line for line in before.advice)

    after = report_on(damaged(), Method(equalise=True))
    assert after.fidelity.snr_db > before.fidelity.snr_db + 10
    assert after.fidelity.snr_db > report_on(tiny_deeplab()).fidelity.snr_db - 3
    assert all(layer.noise_share < 0.9 for layer in after.layers)


def test_inner_tensors_of_an_equalised_network_are_compared_with_its_own_float_form() -> None:
    found = {layer.name: layer for layer in report_on(damaged(), Method(equalise=True)).layers}
    assert found["inner"].accumulated.snr_db > 25, "the channel's factor is not taken for an error"
    assert abs(found["inner"].accumulated.bias_shift_worst) < 0.2


def test_layers_kept_in_floating_point_have_no_error_of_their_own() -> None:
    found = {layer.name: layer for layer in report_on(chain(), keep=("first",)).layers}
    assert not found["first"].int8
    assert (found["first"].alone, found["first"].grid, found["first"].noise_share) == (None, None, 0)
    assert found["first"].accumulated.snr_db > 120, "no error before it, none of its own"
    assert found["atrous"].int8


def test_image_pooling_stays_in_floating_point_and_is_listed() -> None:
    found = {layer.name: layer for layer in report_on(tiny_deeplab()).layers}
    assert [name for name, layer in found.items() if not layer.int8] == ["pooled"]
    assert found["pooled"].accumulated.snr_db < 100, "what comes before it is INT8"


def test_a_network_with_one_convolution_has_a_report_too() -> None:
    writer = GraphWriter()
    found = report_on(writer.model(writer.conv("image", "only", (4, 3, 3, 3)), 17))
    assert [layer.noise_share for layer in found.layers] == [1]
    assert found.costly == ()
    assert found.costly_in_float.snr_db == pytest.approx(found.fidelity.snr_db, abs=1e-3)


def test_where_layers_make_good_for_each_other_costs_and_gains_are_of_layers_rounded_by_themselves() -> None:
    model = tiny_deeplab()
    judge = Judge(Network.prepared(model, HEIGHT, WIDTH).model, images())
    together = Method(bias=True, rounding=True, sequential=True)
    by_itself = quantise(model, replace(together, sequential=False))
    found = layer_report(quantise(model, together), judge, 3, by_itself)
    plain = layer_report(by_itself, judge, 3, by_itself)
    assert found.costly and found.costly_in_float == plain.costly_in_float and found.one_by_one == plain.fidelity
    assert [(c.name, c.gain_db) for c in found.costly] == [
        (c.name, pytest.approx(judge(by_itself.keeping({c.name}).model()).snr_db - plain.fidelity.snr_db)) for c in plain.costly
    ]
    assert found.fidelity != plain.fidelity


def test_scores_that_are_not_finite_are_refused() -> None:
    quantisation = quantise(chain())
    weights = {"scores.bias": np.full(4, np.inf, np.float32)}
    broken = replace(quantisation, network=quantisation.network.with_weights(weights))
    with pytest.raises(CheckFailed, match="not finite"), np.errstate(all="ignore"):
        layer_report(broken, Judge(quantisation.float_network.model, images()), 3, broken)


def test_a_report_survives_the_disk_and_belongs_to_one_calibration(report, tmp_path: Path) -> None:
    path = tmp_path / "calibration.report.json"
    assert read_report(path, "abc") is None
    write_report(path, report, "abc")
    assert read_report(path, "abc") == report
    assert read_report(path, "abd") is None
    data = json.loads(path.read_text())
    for damaged_data in ({**data, "layers": [{}]}, {**data, "fidelity": None}, [], {}):
        path.write_text(json.dumps(damaged_data))
        assert read_report(path, "abc") is None
    path.write_text("{")
    assert read_report(path, "abc") is None
