"""Where a calibration's results may go: nothing that is worth keeping lies there, and no two of them meet.

An earlier calibration's results are replaced, whatever model they are of. So is a file that cannot be read as what its name
says, which is a result that was damaged. Anything else stays, and the calibration is refused before it begins.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dlv3deploy.calibration.implicit import ImplicitFiles, is_implicit_graph
from dlv3deploy.calibration.report_file import is_report
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import is_object_with, read_json
from dlv3deploy.core.graph import embedded_spec
from dlv3deploy.core.workspace import report_page

if TYPE_CHECKING:
    from onnx import ModelProto

PAGE_TITLE = "INT8 calibration of"  # what the page of a report is known by
HEAD_BYTES = 4096


def check_targets(source: Path, int8_path: Path, table_path: Path, report: Path | None) -> None:
    """`report` is where one goes if it is wanted; its page lies beside the table.

    Raises UserError when a result would replace the model that is read, a folder, another result, or a file that no calibration
    made.
    """
    implicit = ImplicitFiles.beside(int8_path)
    targets: list[tuple[Path, str, Callable[[Path], bool]]] = [
        (int8_path, "--to", _is_int8),
        (table_path, "--table", _is_table),
        (implicit.graph, "--to", _is_implicit_graph),
        (implicit.cache, "--to", _is_cache),
    ]
    if report is not None:
        targets += [(report, "--table", _is_report), (report_page(table_path), "--table", _is_page)]
    taken = {_place(source): "the model to calibrate lies there"}
    for path, option, is_ours in targets:
        place = _place(path)
        if place.is_dir():
            raise UserError(str(path), "is a folder, a file is needed", "choose another name")
        if place in taken:
            raise UserError(str(path), taken[place], "choose another name: --to, --table")
        taken[place] = "two results would have this name"
        if place.is_file() and not is_ours(place):
            rule = "is there, and no calibration made it; it would be replaced"
            raise UserError(str(path), rule, f"move it away, or choose another name: {option}")


def _is_int8(path: Path) -> bool:
    model = _parsed(path)
    spec = embedded_spec(model, str(path)) if model is not None else None
    return model is None or (spec is not None and "calibration" in spec.parents)


def _is_implicit_graph(path: Path) -> bool:
    model = _parsed(path)
    return model is None or is_implicit_graph(model)


def _parsed(path: Path) -> ModelProto | None:
    """An ONNX file, also one that could not be calibrated; None where it holds no graph."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError:
        return None
    return model if model.graph.node else None


def _is_cache(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"TRT-", b"")


def _is_table(path: Path) -> bool:
    return _is_empty(path) or is_object_with(path, "onnx_sha256", "ranges")


def _is_report(path: Path) -> bool:
    return _is_empty(path) or is_report(path)


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return PAGE_TITLE.encode() in file.read(HEAD_BYTES)


def _is_empty(path: Path) -> bool:
    """Of a JSON file; one that cannot be parsed holds nothing."""
    try:
        return read_json(path) in ({}, [], None)
    except UserError:
        return True


def _place(path: Path) -> Path:
    return Path(os.path.realpath(path))
