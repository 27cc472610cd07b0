"""From an ONNX file and images to a Q/DQ ONNX file and its calibration table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from dlv3deploy.calibration.collect import collect_ranges
from dlv3deploy.calibration.observers import MinMax
from dlv3deploy.calibration.placement import place
from dlv3deploy.calibration.quantize import quantized, shared_ranges
from dlv3deploy.calibration.table import CalibrationKey, CalibrationTable
from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.graph import embed_spec, embedded_spec, fix_input, load_onnx, save_onnx, simplified
from dlv3deploy.core.images import read_frame
from dlv3deploy.core.preprocess import preprocess
from dlv3deploy.core.progress import tracked
from dlv3deploy.core.spec import InputSpec, ModelSpec

METHOD = "min-max, placement 1"  # the number grows when the recipe of `placement.py` changes


def calibrate(onnx_path: Path, spec: ModelSpec, images: Sequence[Path], int8_path: Path, table_path: Path) -> CalibrationTable:
    """Write the INT8 model and its table, with statistics from `images` at the spec's input size.

    Returns the table of an earlier call when nothing that it depends on has changed. Raises UserError for unreadable images or
    a graph that cannot be quantised, CheckFailed when activations are not finite; older files then stay as they were.
    """
    size = spec.input.height, spec.input.width
    given = f"{spec.input.colour_order} {spec.input.resize}, mean {spec.input.mean}, std {spec.input.std}"
    key = CalibrationKey(sha256_of(onnx_path), images_hash(images), len(images), size, given, METHOD)
    if (done := _done_before(key, int8_path, table_path)) is not None:
        return done
    model = simplified(load_onnx(onnx_path))
    fixed = fix_input(model, (1, 3, spec.input.height, spec.input.width))
    placement = place(fixed.graph)
    batches = tracked(_batches(images, spec.input), "calibrating", len(images))
    ranges, _ = collect_ranges(fixed, batches, {name: MinMax(name) for name in placement.tensors})
    table = CalibrationTable(key, shared_ranges(placement, ranges), placement.kept_float)
    result = quantized(model, placement, table.ranges)
    embed_spec(result, spec.made_from(onnx=key.onnx_sha256, calibration=key.digest()))
    save_onnx(int8_path, result)
    table.write(table_path)
    return table


def _done_before(key: CalibrationKey, int8_path: Path, table_path: Path) -> CalibrationTable | None:
    if not (int8_path.is_file() and table_path.is_file()):
        return None
    try:
        table, spec = CalibrationTable.read(table_path), embedded_spec(load_onnx(int8_path), str(int8_path))
    except UserError:
        return None  # damaged: made again
    same = table.key == key and spec is not None and spec.parents.get("calibration") == key.digest()
    return table if same else None


def _batches(images: Sequence[Path], spec: InputSpec) -> Iterator[Batch]:
    for path in images:
        yield preprocess(read_frame(path), spec)[0]


def images_hash(images: Sequence[Path]) -> str:
    """One sha256 over the contents of all images, in order."""
    return hashlib.sha256("\n".join(sha256_of(path) for path in images).encode()).hexdigest()


def spread(images: Sequence[Path], count: int) -> list[Path]:
    """`count` images at equal distances over the sorted list, so that a video's whole length is covered."""
    if len(images) <= count:
        return list(images)
    return [images[round(i * (len(images) - 1) / max(1, count - 1))] for i in range(count)]
