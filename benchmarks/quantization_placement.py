"""Where Q/DQ pairs stand and what compilers make of it, as a table of the quantisation page."""

from __future__ import annotations

from collections.abc import Sequence

from markdown import NONE, markdown_table
from quantization_rows import Compiled, Row, Structure, Why

from dlv3deploy.engines.tensorrt_backend import OF_A_PLAN

HEADER = ("model", "placement", "Q/DQ pairs", "convolutions", "write INT8", "further kernels", "TensorRT-RTX", "MB moved")
EXPLAINED = f"""\
Methods of one model whose pairs stand alike share a line. `Q/DQ pairs` are those on activations. By the rules that NVIDIA
documents for TensorRT (`engines/fusion.py`): `write INT8` counts the convolutions that do, `further kernels` those without a
convolution that write INT8, from floating point or from INT8: an image that is quantised, an activation or a sum that a pair
cuts off from its convolution. `TensorRT-RTX` is what its compiler made for compute capability {OF_A_PLAN}, convolution kernels
+ others, and `MB moved` the activations that these read and write (10⁶ bytes)."""


def placements(rows: Sequence[Row]) -> list[str]:
    """Where the pairs stand and what compilers make of it: once for all methods of a model that do not differ in it."""
    alike: dict[tuple[str, Structure | None, Compiled | Why | None], list[str]] = {}
    for row in rows:
        if row.structure is not None or isinstance(row.tensorrt, Compiled):
            alike.setdefault((row.case, row.structure, row.tensorrt), []).append(row.title)
    if not alike:
        return []
    cells = [
        (case, titles[0] if len(titles) == 1 else f"{titles[0]} and {len(titles) - 1} more", *_structure(structure, compiled))
        for (case, structure, compiled), titles in alike.items()
    ]
    return ["## Placement", "", EXPLAINED, "", markdown_table(HEADER, cells), ""]


def _structure(structure: Structure | None, compiled: Compiled | Why | None) -> tuple[str, ...]:
    placed = (structure.pairs, structure.convolutions, structure.writing_int8, structure.others) if structure else (NONE,) * 4
    if not isinstance(compiled, Compiled):
        return (*map(str, placed), compiled.short if compiled else NONE, NONE)
    return (*map(str, placed), f"{compiled.convolutions} + {compiled.others}", f"{compiled.bytes_moved / 1e6:.1f}")
