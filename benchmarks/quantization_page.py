"""The page of the quantisation table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date

from hidden_paths import without_paths
from machine import Machine
from markdown import NONE, markdown_table, percent, points, with_error
from measured import Limits
from quantization_memory import MemoryRow
from quantization_methods import FLOAT
from quantization_placement import placements
from quantization_rows import Row, Why
from quantization_scores import BLOCK, BOUNDARY_PIXELS, RESAMPLES, MaskScores, worst_class_drop
from quantization_standing import beside_the_others

LONGEST_NOTE = 300
HEADER = (
    *("model", "method", "mIoU", "drop", "worst class", "boundary mIoU", "as FP32", "seconds", "MB", "INT8 MACs"),
    *("TensorRT-RTX", "OpenVINO"),
)
EXPLAINED = f"""\
- Every method had the same images in the same preprocessing. Masks: ONNX Runtime on the CPU with graph optimisation off, so
  that Q/DQ pairs round and all else runs in float32, the same for every row; then this project's exact postprocessing.
- `drop` and `worst class`: points (hundredths) of mIoU and of the IoU of the class that lost the most, against FP32. After ±
  the drop's standard error: runs of {BLOCK} judged images drawn anew with replacement, {RESAMPLES} times, the same for both.
- `boundary mIoU`: of the pixels that have another label id at most {BOUNDARY_PIXELS} rows and columns away; void is such an
  id, and is not counted itself.
- `as FP32`: the share of all pixels that have the class of the FP32 model's mask.
- `seconds` and `MB` (10⁶ bytes, the largest resident memory): the calibration as a process of its own, with start, libraries,
  reading of images and writing of the model.
- `INT8 MACs`: the share of the convolutions' multiply-accumulates that are in convolutions which read a DequantizeLinear on
  data and on weights.
- `TensorRT-RTX`: whether it builds the file, which needs no GPU; says nothing of speed.
- `OpenVINO`: the share of pixels that have one class in ONNX Runtime's masks and in OpenVINO's, both of the quantised model. It
  too rounds at pairs and computes in float32: its INT8 kernels saturate at 16 bits on a processor without VNNI, and on one with
  it (2026.4.1) lose the scale of a resized map that is quantised, as ASPP's image pooling is in every row
  (`openvino_resize.py`). Sums in another order round to another step now and then, and that spreads.
- Twins have the function of the model whose name they begin with. `camvid-twin` is a file of its own; those with a factor and a
  seed are made by `twins.py`, which scales the very groups of channels that `equalise` knows, by chance.
- ONNX Runtime is `quantize_static` behind its `quant_pre_process`: Q/DQ, symmetric INT8, per-channel weights, percentile 99.99;
  `float biases` sets QuantizeBias to False, `image by image` CalibStridedMinMax to 1. ModelOpt is
  its ONNX PTQ on the CPU; what it does not quantise stays FP32."""


@dataclass(frozen=True)
class Facts:
    """What the head of the page says. `cases` are lines about each model, `versions` of what was compared."""

    machine: Machine
    versions: Sequence[str]
    day: date
    command: str
    limits: Limits
    cases: Sequence[str]


@dataclass
class _Notes:
    """Reasons below the table, each once, by the number that stands in the cells."""

    texts: list[str] = field(default_factory=list)

    def cell(self, why: Why) -> str:
        text = without_paths(why.reason)
        text = text if len(text) <= LONGEST_NOTE else f"{text[:LONGEST_NOTE]}…"
        if not text:
            return why.short
        if text not in self.texts:
            self.texts.append(text)
        return f"{why.short} ({self.texts.index(text) + 1})"

    def lines(self) -> list[str]:
        return [line for number, text in enumerate(self.texts, 1) for line in (f"({number}) {text}", "")]


def document(rows: Sequence[Row], memory: Sequence[MemoryRow], facts: Facts) -> str:
    """The whole page; nothing in it tells where files lie on the machine."""
    notes = _Notes()
    floats = {row.case: row.scores for row in rows if isinstance(row.scores, MaskScores) and row.title == FLOAT.title}
    table = markdown_table(HEADER, [_cells(row, floats.get(row.case), _same_masks(row, rows), notes) for row in rows])
    limit = f"{facts.limits.seconds:.0f} s, {facts.limits.memory_mb} MB"
    return "\n".join(
        (
            "# INT8 methods on the same model and images",
            "",
            *(f"- {line}" for line in facts.machine.lines()),
            f"- {', '.join(facts.versions)}",
            f"- date: {facts.day.isoformat()}{_measured_on([*rows, *memory], facts.day)}",
            f"- command: `{without_paths(facts.command)}`",
            f"- limits of one calibration: {limit}",
            *(f"- {line}" for line in facts.cases),
            "",
            table,
            "",
            *notes.lines(),
            EXPLAINED,
            "",
            *beside_the_others(rows),
            *placements(rows),
            *(_memory(memory) if memory else ()),
            "Written by `benchmarks/quantization.py`.",
            "",
        )
    )


def _measured_on(rows: Sequence[Row | MemoryRow], day: date) -> str:
    """Where calibrations were measured on other days, which; on one machine in any case."""
    days = sorted({row.day for row in rows if row.day})
    return f"; measured from {days[0]} to {days[-1]}" if days and days[0] != day.isoformat() else ""


def _same_masks(row: Row, rows: Sequence[Row]) -> str | None:
    """The first row above of the same model whose masks are equal in every pixel: what tells the two apart did nothing."""
    pixels = _masks_sha256(row)
    above = (other for other in rows[: rows.index(row)] if other.case == row.case)
    return next((other.title for other in above if pixels and _masks_sha256(other) == pixels), None)


def _masks_sha256(row: Row) -> str:
    return row.scores.masks_sha256 if isinstance(row.scores, MaskScores) else ""


def _cells(row: Row, floats: MaskScores | None, same: str | None, notes: _Notes) -> tuple[str, ...]:
    return (
        row.case,
        notes.cell(Why(row.title, f"its masks are those of {same} in every pixel")) if same else row.title,
        *_score_cells(row.scores, floats, is_float=row.title == FLOAT.title, notes=notes),
        _cell(row.seconds, notes, lambda seconds: f"{seconds:.1f}"),
        _cell(row.peak_mb, notes, str),
        _cell(row.int8_share, notes, percent),
        _cell(row.tensorrt, notes, lambda _built: "yes"),
        _cell(row.openvino, notes, percent),
    )


def _score_cells(scores: MaskScores | Why, floats: MaskScores | None, is_float: bool, notes: _Notes) -> tuple[str, ...]:
    if isinstance(scores, Why):
        return notes.cell(scores), NONE, NONE, NONE, NONE
    if is_float or floats is None:
        return f"{scores.miou:.4f}", NONE, NONE, f"{scores.boundary_miou:.4f}", NONE
    worst = worst_class_drop(scores, floats)
    return (
        f"{scores.miou:.4f}",
        with_error(floats.miou - scores.miou, scores.drop_error),
        f"{worst[0]} {points(worst[1])}" if worst else NONE,
        f"{scores.boundary_miou:.4f}",
        percent(scores.agreement),
    )


def _cell(value: object, notes: _Notes, text: Callable[..., str]) -> str:
    if value is None:
        return NONE
    return notes.cell(value) if isinstance(value, Why) else text(value)


def _memory(rows: Sequence[MemoryRow]) -> list[str]:
    cells = [(row.title, str(row.images), _seconds_or_end(row), str(row.peak_mb)) for row in rows]
    return [
        "## Memory of a calibration",
        "",
        f"{rows[0].about}; seconds and MB as above. Where a limit ended it, the memory is what it had by then.",
        "",
        markdown_table(("method", "images", "seconds", "MB"), cells),
        "",
    ]


def _seconds_or_end(row: MemoryRow) -> str:
    if row.end == "done":
        return f"{row.seconds:.1f}"
    return f"{row.end}: {without_paths(row.reason)[:LONGEST_NOTE]}" if row.reason else row.end
