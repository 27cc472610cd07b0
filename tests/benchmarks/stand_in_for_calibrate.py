"""Stands for `dlv3deploy` in the tests of the quantisation table: knows the options of `calibrate`, and writes min-max INT8.

METHOD `fails` says why it fails, `nothing` writes no file, `hungry` takes 300 MB and time, `spoils`
writes into the model that it should read. Every run leaves a line in runs.txt.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dlv3deploy.calibration.calibrate import Request, calibrate
from dlv3deploy.calibration.pictures import spread
from dlv3deploy.commands.options import describe
from dlv3deploy.core.foreign import spec_of
from dlv3deploy.core.graph import load_onnx
from dlv3deploy.core.images import list_images


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True).add_parser("calibrate")
    commands.add_argument("model", type=Path)
    for option in ("images", "to", "table"):
        commands.add_argument(f"--{option}", type=Path, required=True)
    commands.add_argument("--calibration-images", type=int, required=True)
    commands.add_argument("--method", required=True)
    commands.add_argument("--no-report", action="store_true")
    commands.add_argument("--weights", choices=("per-channel", "per-tensor"))
    commands.add_argument("--weight-bits", type=int, choices=(4, 8))
    for option in ("classes", "ignore-index", "mean", "std", "output"):
        commands.add_argument(f"--{option}")
    given = parser.parse_args()
    with (given.to.parent / "runs.txt").open("a", encoding="utf-8") as runs:
        runs.write(f"{given.method} {given.weights} {given.weight_bits}\n")
    if given.method == "fails":
        sys.exit(f"error: {given.model}: cannot be calibrated")
    if given.method == "nothing":
        return
    if given.method == "spoils":
        given.model.write_bytes(given.model.read_bytes() + b"\0")
    if given.method == "hungry":
        block = bytearray(300 * 10**6)
        block[::4096] = bytes(len(block[::4096]))
        time.sleep(60)
    ignore_index = int(given.ignore_index) if given.ignore_index else None
    description = describe(given.classes, ignore_index, given.mean, given.std, given.output)
    spec = spec_of(load_onnx(given.model), description, str(given.model))
    images = spread(list_images(given.images), given.calibration_images)
    calibrate(Request(given.model, spec, images, "min-max"), given.to, given.table)


if __name__ == "__main__":
    main()
