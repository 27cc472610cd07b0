"""The page of one calibration: how near INT8 comes to the float network, which layers cost most, and what to do about each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dlv3deploy.calibration.advice import gain
from dlv3deploy.calibration.fidelity import Fidelity
from dlv3deploy.calibration.layer_facts import LayerFacts
from dlv3deploy.calibration.report import CalibrationReport
from dlv3deploy.calibration.table import CalibrationTable
from dlv3deploy.calibration.tensor_facts import TensorFacts
from dlv3deploy.core.files import write_text
from dlv3deploy.measure.calibration_charts import border_chart, depth_chart, histogram, noise_chart
from dlv3deploy.measure.charts import Chart

TEMPLATE = Path(__file__).with_name("calibration_page.html")
VERDICTS = (  # from which share of equal positions on
    (0.99, "good", "INT8 gives nearly the float network's masks."),
    (0.97, "fair", "INT8 is close to the float network; its masks differ in details."),
    (0.90, "poor", "INT8's masks differ visibly from the float network's."),
    (0.00, "bad", "INT8 as calibrated here breaks this network."),
)
KINDLY = ("good", "fair")
TOO_FEW = "INT8 is like the float network on the very images it was calibrated on, which are too few to tell more."
ON_ITS_OWN = "So it is on images that it was calibrated on; `evaluate` tells what it is on others."


@dataclass(frozen=True)
class CalibrationPage:
    """`model` is what the page calls the float model, `table` and `report` belong to one calibration of it."""

    model: str
    table: CalibrationTable
    report: CalibrationReport

    @property
    def fidelity(self) -> Fidelity:
        """On images that the method had not seen, where some were kept from it."""
        return self.table.elsewhere or self.table.fidelity

    @property
    def verdict(self) -> tuple[str, str]:
        """A word for the style sheet and a sentence or two."""
        agreement = self.fidelity.agreement
        kind, text = next((kind, text) for least, kind, text in VERDICTS if agreement >= least)
        if not self.table.were_apart and kind in KINDLY:
            return "poor", TOO_FEW
        return kind, text if self.table.elsewhere else f"{text} {ON_ITS_OWN}"

    @property
    def int8_share(self) -> float:
        """Of all multiply-accumulates, 0 to 1."""
        return sum(layer.macs_share for layer in self.report.layers if layer.int8)

    @cached_property
    def tensors(self) -> dict[str, TensorFacts]:
        return {tensor.name: tensor for tensor in self.report.tensors}

    @cached_property
    def costly(self) -> set[str]:
        return {layer.name for layer in self.report.costly}

    @property
    def noise_chart(self) -> Chart:
        return noise_chart(self.report.layers)

    @property
    def depth_chart(self) -> Chart:
        return depth_chart(self.report.layers)

    @property
    def atrous(self) -> list[tuple[LayerFacts, Chart]]:
        return [(layer, border_chart(layer)) for layer in self.report.layers if layer.is_atrous]

    @property
    def histograms(self) -> list[tuple[TensorFacts, Chart]]:
        """In the order in which the layers read them, then what only sums and concatenations read."""
        read = dict.fromkeys(layer.input for layer in self.report.layers if layer.input in self.tensors)
        return [(self.tensors[name], histogram(self.tensors[name])) for name in dict.fromkeys([*read, *self.tensors])]

    def write(self, path: Path) -> None:
        """Write the page; texts are escaped, pictures are inside, nothing is loaded."""
        from jinja2 import Environment

        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        environment.filters |= {"share": share, "number": number, "ratio": ratio, "gain": gain, "sentence": sentence}
        write_text(path, environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(page=self))


def share(value: float) -> str:
    """0 to 1 as percent; what is little or nearly all is told from nothing and from all."""
    percent = 100 * value
    if percent in (0, 100):
        return f"{percent:.0f}%"
    if percent < 0.01 or percent > 99.9:
        return "<0.01%" if percent < 0.01 else ">99.9%"
    return f"{percent:.1f}%" if percent >= 10 else f"{percent:.2f}%"


def number(value: float) -> str:
    """Three significant digits, more where whole numbers have them."""
    text = f"{value:.0f}" if 1000 <= abs(value) < 100_000 else f"{value:.3g}"
    return "0" if value == 0 else text.replace("-", "−")


def ratio(decibels: float) -> str:
    return f"{decibels:.1f} dB".replace("-0.0", "0.0").replace("-", "−")


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!")) else ".")
