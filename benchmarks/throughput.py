"""Images a second in training: this package's loop against a plain float32 one, in turns, in one run.

    python benchmarks/throughput.py                                                        # a GPU
    python benchmarks/throughput.py --backbone mobilenet_v2 --crop 129 --batch-size 2 --steps 3    # any machine

Both loops train the same network on the same batches, which lie in the device's memory, so that the step alone is measured;
with --with-loader each takes its own batches from this package's loader. The ratio is ours over the plain loop's of each pair
of turns. The exit code is 0 whether the goal is met or not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any, get_args

import torch
from loops import Batch, Contestant, OurLoop, PlainLoop, allocated
from machine import Machine, this_machine
from markdown import markdown_table
from pictures import write_pictures

from dlv3deploy.commands.options import resolve_classes
from dlv3deploy.core.classes import VOC
from dlv3deploy.core.errors import Dlv3Error, UserError
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import Architecture, InputSpec
from dlv3deploy.train.network.atrous import aspp_rates_at
from dlv3deploy.train.plan import TrainingPlan
from dlv3deploy.train.preparation import batches_of
from dlv3deploy.train.settings import Precision

GOAL = 3.0  # on a GPU
LEARNING_RATE = 1e-4  # pictures without meaning must not make the loss diverge; no step is faster or slower for it
ENDLESS = 1_000_000  # steps, so that the poly rule never reaches its end
PREFETCHED = 2  # batches for each of a loader's processes, torch's default


def main() -> int:
    options = _options()
    try:
        leave_visible(options.device)
        with tempfile.TemporaryDirectory(prefix="throughput-") as folder, warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="lightning_fabric|torch.utils.data")
            facts = measure(options, Path(folder))
    except Dlv3Error as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except torch.OutOfMemoryError:
        print("error: this needs more memory than the GPU has; use a smaller --batch-size or --crop", file=sys.stderr)
        return 1
    print(json.dumps(facts, ensure_ascii=False) if options.json else as_text(facts))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50", help="as train has them (default: %(default)s)")
    parser.add_argument("--output-stride", type=int, default=16)
    parser.add_argument("--crop", type=int, default=513, help="side of the square crop (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="timed updates in a turn (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each loop (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=5, help="untimed updates before all turns (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; one device (default: %(default)s)")
    help_ = "of our loop, as train has it (default: %(default)s)"
    parser.add_argument("--precision", default="auto", choices=get_args(Precision), help=help_)
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="our loop without torch.compile")
    parser.add_argument("--no-tf32", action="store_true", help="the plain loop without TF32, which torch's defaults allow")
    parser.add_argument("--with-loader", action="store_true", help="read, augment and transfer the batches as well")
    parser.add_argument("--data", type=Path, help="data set for --with-loader; default: pictures made for it")
    parser.add_argument("--classes", help="of --data, as train has it")
    parser.add_argument("--workers", type=int, default=min(16, len(os.sched_getaffinity(0))), help="of each loader")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout and nothing else")
    options = parser.parse_args()
    for name in ("steps", "turns", "warm_up"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is 1 or more")
    if options.data and not options.with_loader:
        parser.error("--data is of --with-loader")
    return options


def leave_visible(device: str) -> None:
    """Hide all other devices before torch looks for them: training takes every one that it sees. Raises UserError."""
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and (kind != "cuda" or not number.isdecimal())):
        raise UserError(f"--device {device}", "is unknown", "use auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    index = int(number or 0)
    names = [str(index)] if visible is None else [name for name in visible.split(",") if name]
    chosen = 0 if visible is None else index
    os.environ["CUDA_VISIBLE_DEVICES"] = names[chosen] if chosen < len(names) else ""
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {device}", "torch finds no such GPU", "use --device cpu, or a torch with CUDA")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both loops in turns, and everything that was printed about them as JSON."""
    if options.no_tf32:  # our loop computes in less anyway, unless --precision says 32-true
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    plan = _plan(options, folder / "data")
    before = _allocated_if_any()
    ours = OurLoop(plan, folder / "run")
    device = ours.run.fabric.device
    ours_built = allocated(device)
    one = None if options.with_loader else _batch(plan, device)
    ours_feed, plain_feed = (_feed(ours, one) for _ in range(2))
    first = Contestant(ours, ours_feed, device)
    extra = allocated(device) - ours_built  # the batch, which is nobody's own
    say("warming up, compiling among it" if plan.compiled else "warming up")
    first.warm_up(options.warm_up, before + extra)
    between = allocated(device)
    second = Contestant(PlainLoop(plan, device), plain_feed, device)
    second.warm_up(options.warm_up, between)
    prefetched = PREFETCHED * plan.workers if options.with_loader else 0
    for _ in range(options.turns):
        for contestant in (first, second):
            contestant.turn(options.steps, prefetched)
    return _facts(options, plan, first, second)


def _plan(options: argparse.Namespace, folder: Path) -> TrainingPlan:
    data, classes = options.data or folder, VOC
    if options.data:
        classes = resolve_classes(options.data, options.classes, None, None, None)
    else:
        write_pictures(folder, 64 if options.with_loader else 2, 1, len(classes))
    stride, crop = options.output_stride, (options.crop, options.crop)
    return TrainingPlan(
        data=data,
        classes=classes,
        architecture=Architecture(options.backbone, stride, aspp_rates_at(stride)),
        input=InputSpec(*crop),
        crop=crop,
        steps=ENDLESS,
        batch_size=options.batch_size,
        learning_rate=LEARNING_RATE,
        workers=options.workers,
        precision=options.precision,
        compiled=options.compile,
    )


def _allocated_if_any() -> int:
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def _batch(plan: TrainingPlan, device: torch.device) -> Batch:
    torch.manual_seed(0)
    images = torch.randn(plan.batch_size, 3, *plan.crop, device=device)
    return images, torch.randint(0, len(plan.classes), (plan.batch_size, *plan.crop), device=device)


def _feed(ours: OurLoop, batch: Batch | None) -> Iterator[Batch]:
    return batches_of(ours.run) if batch is None else repeat(batch)


def _facts(options: argparse.Namespace, plan: TrainingPlan, ours: Contestant, plain: Contestant) -> dict[str, Any]:
    on_gpu = ours.device.type == "cuda"
    ratios = [slow / fast for fast, slow in zip(ours.step_ms, plain.step_ms, strict=True)]
    return {
        "machine": vars(this_machine(torch.cuda.get_device_name(ours.device) if on_gpu else None)),
        "device": ours.device.type,
        "backbone": plan.architecture.backbone,
        "output_stride": plan.architecture.output_stride,
        "crop": list(plan.crop),
        "batch_size": plan.batch_size,
        "classes": len(plan.classes),
        "batches": f"loader, {plan.workers} workers" if options.with_loader else "memory",
        "steps": options.steps,
        "turns": options.turns,
        "ours": _figures(ours, plan.batch_size),
        "plain": _figures(plain, plan.batch_size),
        "ratio": _spread(ratios),
        "goal": {"ratio": GOAL, "met": median(ratios) >= GOAL if on_gpu else None},
    }


def _figures(contestant: Contestant, batch_size: int) -> dict[str, Any]:
    return {
        "what": contestant.loop.what,
        "images_per_second": _spread([batch_size * 1e3 / ms for ms in contestant.step_ms]),
        "step_ms": _spread(contestant.step_ms),
        "peak_memory_bytes": contestant.peak or None,
        "warm_up_ms": contestant.warm_up_ms,
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": median(values), "max": max(values)}


def as_text(facts: dict[str, Any]) -> str:
    """What was measured, a table, and the ratio as the last line."""
    crop = "×".join(str(side) for side in facts["crop"])
    network = f"DeepLabv3, {facts['backbone']}, output stride {facts['output_stride']}, {facts['classes']} classes"
    rows = [_row(name, facts[name]) for name in ("ours", "plain")]
    header = ("loop", "images/s", "min to max", "ms a step", "peak memory", "warm-up", "what it is")
    ratio, goal = facts["ratio"], facts["goal"]
    verdict = {None: "is for a GPU, this ran on a CPU", True: "is met", False: "is not met"}[goal["met"]]
    return "\n".join(
        (
            *Machine(**facts["machine"]).lines(),
            f"{network}; {facts['batch_size']} crops of {crop}; batches from {facts['batches']}; on the {_device(facts)}",
            f"{facts['turns']} turns of each loop, alternating, {facts['steps']} timed steps a turn",
            "",
            markdown_table(header, rows),
            "",
            f"ours / plain: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}); the goal of {GOAL:g} {verdict}",
        )
    )


def _device(facts: dict[str, Any]) -> str:
    return "GPU" if facts["device"] == "cuda" else "CPU"


def _row(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    speed, memory = figures["images_per_second"], figures["peak_memory_bytes"]
    return (
        name,
        f"{speed['median']:.2f}",
        f"{speed['min']:.2f} to {speed['max']:.2f}",
        f"{figures['step_ms']['median']:.1f}",
        f"{memory / 2**30:.2f} GiB" if memory else "not counted",
        f"{figures['warm_up_ms'] / 1e3:.1f} s",
        figures["what"],
    )


if __name__ == "__main__":
    sys.exit(main())
