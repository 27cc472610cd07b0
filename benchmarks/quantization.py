"""INT8 methods on the same model and the same images, in one table: ONNX Runtime's, NVIDIA ModelOpt's and ours.

    python benchmarks/quantization.py --shared ../shared --workspace DIR                  # its models
    python benchmarks/quantization.py --shared ../shared --workspace DIR --model camvid-twin --methods ort,ours:auto --every 4
    python benchmarks/quantization.py --workspace DIR --data DATA --calibration-images FOLDER \\
        --model NAME=FILE.onnx[,classes=camvid,mean=127.5,127.5,127.5,std=127.5,127.5,127.5] …

What DIR holds already is not measured again, Ctrl-C keeps it, and a failure is tried again. A run of all built-in models by all
methods on all images writes benchmarks/results/quantization.md, any other DIR/quantization.md.
Exit codes: 0 all that this machine can was measured, 1 some of it failed (the table says what) or something given cannot be
read, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from machine import installed, this_machine
from measured import Limits
from peer_environment import MODELOPT, OPENVINO, Peers
from quantization_cases import Case, Request, built_in, open_case, parse_request
from quantization_memory import MemoryRow, memory_rows
from quantization_methods import FOR_HARD_MODELS, parse_methods
from quantization_page import Facts, document
from quantization_rows import TENSORRT_RTX, Bench, Row

from dlv3deploy.commands.options import parse_size
from dlv3deploy.core.errors import Dlv3Error, UserError
from dlv3deploy.core.files import write_text
from dlv3deploy.core.interrupts import termination_as_interrupt
from dlv3deploy.core.progress import say
from dlv3deploy.engines.gpu import find_gpu
from dlv3deploy.engines.onnxruntime_engine import lacks_vnni

TABLE = Path(__file__).parent / "results" / "quantization.md"
IMAGES = 64
MEMORY_SHARE = 0.75  # of the machine's, for one calibration
INTERRUPTED = 130


def main() -> int:
    options = _options().parse_args()
    try:
        with termination_as_interrupt():
            return _measure(options)
    except KeyboardInterrupt:
        say("interrupted; go on with the same command")
        return INTERRUPTED
    except Dlv3Error as error:
        say(f"error: {error}")
        return error.exit_code


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--workspace", type=Path, required=True, help="where quantised models, masks and the peers' environments lie")
    add("--shared", type=Path, help="folder with the models and data of the built-in names: `camvid`, `camvid-twin`, `voc`, …")
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME[=FILE,…]",
        help="a built-in name, or a file with classes=, ignore-index=, mean=, std=, output=, data=, images= where it does not "
        "describe itself or the options do not fit, and hard=yes to try fewer methods; default: all built-in ones",
    )
    add("--data", type=Path, help="labelled images that judge; of data with splits, val")
    add("--calibration-images", type=Path, metavar="FOLDER", help="images that calibrate")
    add("--images", type=int, default=IMAGES, help="so many of them, spread evenly (default: %(default)s)")
    add("--methods", default="all", help="names and groups with commas between them: all, ort, modelopt, ours, ours:METHOD")
    add("--every", type=int, default=1, help="judge every so many-th image (default: all)")
    add("--size", help="HEIGHTxWIDTH for models of dynamic size")
    add("--openvino", action="store_true", help="also compare with OpenVINO's masks")
    add("--memory", action="store_true", help="also measure the memory of calibrating `voc` with 10, 100 and 200 images")
    add("--time-limit", type=float, default=7200, metavar="S", help="of one calibration (default: %(default)s)")
    add("--memory-limit", type=int, default=_most_memory(), metavar="MB", help="of one calibration (default: %(default)s)")
    add("--to", type=Path, help="the page's file")
    return parser


def _most_memory() -> int:
    return int(MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6)


def _measure(options: argparse.Namespace) -> int:
    if min(options.images, options.every) < 1:
        raise UserError("--images and --every", "count from 1", "give 1 or more")
    limits, peers = Limits(options.time_limit, options.memory_limit), Peers(options.workspace)
    known = built_in(options.shared) if options.shared else {}
    requests = [parse_request(m, known, options.data, options.calibration_images) for m in options.model or list(known)]
    if not requests:
        raise UserError("no --model", "there is nothing to compare", "give --shared DIR, or --model NAME=FILE.onnx")
    if options.memory and "voc" not in known:
        raise UserError("--memory", "calibrates the built-in model `voc`", "give --shared DIR")
    methods = parse_methods(options.methods)
    size = parse_size(options.size) if options.size else None
    bench = Bench(options.workspace, peers, limits, options.openvino)
    page = options.to or (TABLE if _is_whole(options) else options.workspace / "quantization.md")
    rows, memory, cases = list[Row](), list[MemoryRow](), list[Case]()

    def write() -> None:
        about = [f"{case.name}: {case.about}" for case in cases]
        gpu = find_gpu()
        machine = this_machine(gpu.name if gpu else None)
        command = f"python benchmarks/quantization.py {shlex.join(sys.argv[1:])}"
        write_text(page, document(rows, memory, Facts(machine, _versions(peers), date.today(), command, limits, about)))

    for case in _opened(requests, options, size):
        cases.append(case)
        rows.append(bench.float_row(case))
        for method in FOR_HARD_MODELS if case.is_hard and options.methods == "all" else methods:
            rows.append(bench.row(case, method))
            write()
    if options.memory:
        for row in memory_rows(known["voc"], options.workspace, peers, limits):
            memory.append(row)
            write()
    write()
    failed = sum(row.failed for row in rows) + sum(row.end == "failed" for row in memory)
    say(f"wrote {page}; {len(rows) + len(memory) - failed} of {len(rows) + len(memory)} rows without a failure")
    return 1 if failed else 0


def _is_whole(options: argparse.Namespace) -> bool:
    """Whether nothing that a reader of the page expects is left out."""
    plain = _options()
    return all(getattr(options, name) == plain.get_default(name) for name in ("model", "methods", "every", "images", "size"))


def _opened(requests: Sequence[Request], options: argparse.Namespace, size: tuple[int, int] | None) -> list[Case]:
    """All of them before anything is measured: a typing error shows at once."""
    return [open_case(r, options.workspace / r.name, options.images, options.every, size) for r in requests]


def _versions(peers: Peers) -> list[str]:
    found = {name: installed(name) for name in ("onnxruntime", "onnx", TENSORRT_RTX)}
    found |= {environment.package: peers.version(environment) for environment in (MODELOPT, OPENVINO)}
    versions = [f"{name} {version or 'not installed'}" for name, version in found.items()]
    return [*versions, "a processor without VNNI" if lacks_vnni() else "a processor with VNNI"]


if __name__ == "__main__":
    sys.exit(main())
