"""How fast engines are here: every backend and precision, original and rewritten, beside PyTorch; and a run's frames with them.

    python benchmarks/latency.py                                                     # a GPU: what it is for
    python benchmarks/latency.py --backbone mobilenet_v2 --size 129x129 --seconds 2  # any machine

Networks have random weights, which no latency depends on; INT8 is calibrated on noise by min-max. All engines of a network are
timed in turns. The page is printed; with --to it is written.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from frames_in_memory import FramesInMemory
from machine import installed, this_machine
from markdown import NONE, markdown_table, page
from numpy.typing import NDArray
from random_networks import calibrated_on_noise, fresh_graph, fresh_model, spec_for

from dlv3deploy.commands.options import parse_size
from dlv3deploy.core.engine import Batch, Engine, Outputs
from dlv3deploy.core.errors import Dlv3Error
from dlv3deploy.core.files import write_text
from dlv3deploy.core.progress import say
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import Architecture
from dlv3deploy.engines.build import build
from dlv3deploy.engines.dialect import DIALECTS
from dlv3deploy.engines.gpu import find_gpu
from dlv3deploy.engines.onnxruntime_engine import NAME as ONNXRUNTIME
from dlv3deploy.engines.open import open_engine
from dlv3deploy.engines.request import EngineRequest, Precision, backend_of
from dlv3deploy.engines.rewrites.certified import BY_DEFAULT
from dlv3deploy.engines.tensorrt_engine import TensorRTEngine
from dlv3deploy.engines.timing import Limits, infer_in_turns, timing_of
from dlv3deploy.engines.tune import Candidate, fastest
from dlv3deploy.measure.benchmark import benchmark
from dlv3deploy.train.torch_engine import TorchEngine
from dlv3deploy.video import Overlay, run_pipeline
from dlv3deploy.video.sink import NullSink

BACKBONES = ("mobilenet_v2", "resnet50")
SIZE, SECONDS = "513x513", 30.0
FRAME = (720, 1280)
FRAMES, RUNS = 120, 50
WARM_UP_S, FEWEST, MOST = 2.0, 8, 500
HEADER = ("runtime", "precision", "rewrites", "median", "90th percentile", "× PyTorch", "kept")
WHOLE = ("engine", "network alone", "frame to scores", "scores to mask", "a frame of a run", "run / network")
EXPLAINED = """\
- From one image in the host's memory to scores there; `× PyTorch` is PyTorch's eager median, in FP32, by the row's. `kept`:
  what `build-engine --tune` keeps of a runtime's rows, by its rule and these very rounds.
- The second table is of the engines that are kept: frames of {frame} from memory, masks thrown away. `network alone` copies
  and prepares nothing; `frame to scores` and `scores to mask` are one after the other, a run overlaps them, and is the time
  from its first frame to its last by their number."""


@dataclass(frozen=True)
class Contestant:
    """`request` is None for PyTorch."""

    runtime: str
    precision: str
    engine: Engine
    rewrites: tuple[str, ...] = ()
    request: EngineRequest | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", action="append", help=f"may be repeated; default: {', '.join(BACKBONES)}")
    parser.add_argument("--size", default=SIZE, help="HEIGHTxWIDTH (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of timing a network's engines (default: %(default)s)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes a while")
    parser.add_argument("--to", type=Path, help="file of the page")
    options = parser.parse_args()
    gpu = find_gpu()
    facts = [*this_machine(gpu.name if gpu else None).lines()]
    facts += [f"{name} {found}" for name in ("onnxruntime", "onnxruntime-gpu", *DIALECTS) if (found := installed(name))]
    facts += [f"date: {date.today().isoformat()}", f"command: `python benchmarks/latency.py {shlex.join(sys.argv[1:])}`"]
    try:
        size = parse_size(options.size)
        names, compiles = options.backbone or BACKBONES, not options.no_compile
        parts = [part for name in names for part in _parts(name, size, options.seconds, compiles)]
    except Dlv3Error as error:
        say(f"error: {error}")
        return error.exit_code
    explained = EXPLAINED.format(frame="×".join(map(str, FRAME)))
    text = page("Latency", facts, "\n\n".join(parts), explained, "benchmarks/latency.py")
    if options.to:
        write_text(options.to, text)
        say(f"wrote {options.to}")
    else:
        print(text)
    return 0


def _parts(backbone: str, size: tuple[int, int], seconds: float, compiles: bool) -> Iterator[str]:
    """The two tables of a network, and what was left out of them."""
    architecture = Architecture(backbone)
    with TemporaryDirectory() as folder, ExitStack() as opened:
        left = dict[str, list[str]]()
        contestants = list(_of_torch(architecture, size, compiles))
        contestants += _engines(architecture, size, Path(folder), opened, left)
        times = infer_in_turns([each.engine for each in contestants], 1, Limits(WARM_UP_S, seconds, FEWEST, MOST))
        kept = _kept(contestants, times)
        eager = float(np.median(times[0]))
        rows = []
        for each, ms in zip(contestants, times, strict=True):
            timing, mark = timing_of(ms), "yes" if each in kept else ""
            figures = (f"{timing.p50_ms:.2f} ms", f"{timing.p90_ms:.2f} ms", f"{eager / timing.p50_ms:.2f}")
            rows.append((each.runtime, each.precision.upper(), ", ".join(each.rewrites) or NONE, *figures, mark))
        yield f"## {backbone}, {size[0]}×{size[1]}"
        yield markdown_table(HEADER, rows)
        yield markdown_table(WHOLE, [_whole(each, seconds / 2) for each in kept])
        if left:
            yield "Left out: " + "; ".join(f"{', '.join(names)} ({reason})" for reason, names in left.items()) + "."


def _engines(
    architecture: Architecture, size: tuple[int, int], folder: Path, opened: ExitStack, left: dict[str, list[str]]
) -> Iterator[Contestant]:
    """Of every backend that runs here; `left` gets the others by the reason why."""
    spec, graph = spec_for(size), fresh_graph(architecture, size)
    source, int8 = folder / "model.onnx", folder / "model.int8.onnx"
    source.write_bytes(graph.SerializeToString())
    int8.write_bytes(calibrated_on_noise(graph).SerializeToString())
    places = [(ONNXRUNTIME, provider) for provider in ("cpu", "cuda", "tensorrt")] + [(name, None) for name in DIALECTS]
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    for backend, provider in places:
        for precision in precisions:
            seen = list[tuple[str, ...]]()
            for rewrites in ((), BY_DEFAULT):
                onnx = int8 if precision == "int8" else source
                request = EngineRequest(
                    onnx, source, spec, precision, backend, provider=provider, rewrites=rewrites, asked=False
                )
                runtime = f"{backend} {provider}" if provider else backend
                try:
                    if not backend_of(request).runs_here():
                        left.setdefault("does not run here", []).append(f"{runtime} {precision.upper()}")
                        break
                    path = folder / f"{runtime} {precision} {len(seen)}.engine"
                    manifest = build(request, path)
                    if manifest.rewrites in seen:
                        continue
                    engine = opened.enter_context(open_engine(path))
                except Dlv3Error as error:
                    left.setdefault(str(error), []).append(f"{runtime} {precision.upper()}")
                    break
                seen.append(manifest.rewrites)
                yield Contestant(runtime, precision, engine, manifest.rewrites, request)


class _HalfTorchEngine(TorchEngine):
    """As PyTorch's users do it: weights and image in half precision."""

    def infer(self, batch: Batch) -> Outputs:
        with torch.inference_mode():
            scores: Outputs = self.model(torch.from_numpy(batch).to(self.device).half()).float().cpu().numpy()
        return scores


def _of_torch(architecture: Architecture, size: tuple[int, int], compiles: bool) -> Iterator[Contestant]:
    """Eager and compiled; on a GPU in half precision, too."""
    spec, gpu = spec_for(size), torch.cuda.is_available()
    for precision, kind in (("fp32", TorchEngine), ("fp16", _HalfTorchEngine))[: 1 + gpu]:
        model = fresh_model(architecture).to("cuda" if gpu else "cpu")
        model = model.half() if precision == "fp16" else model
        yield Contestant("PyTorch", precision, kind(model, spec))
        if compiles:
            compiled = kind(model, spec)
            compiled.model = torch.compile(model)
            yield Contestant("PyTorch compiled", precision, compiled)


def _kept(contestants: Sequence[Contestant], times: Sequence[NDArray[np.float64]]) -> list[Contestant]:
    """Of each runtime but PyTorch's, by the rule of tuning."""
    found = []
    for runtime in dict.fromkeys(each.runtime for each in contestants if each.request is not None):
        own = [(each, ms) for each, ms in zip(contestants, times, strict=True) if each.runtime == runtime]
        raced = [Candidate(each.request, each.rewrites, ms) for each, ms in own if each.request is not None]
        found.append(own[fastest(raced)][0])
    return found


def _whole(contestant: Contestant, seconds: float) -> tuple[str, ...]:
    """Of frames from memory with one engine: its network, its stages, a run."""
    random, engine = np.random.default_rng(0), contestant.engine
    frames = [random.integers(0, 256, (*FRAME, 3), np.uint8) for _ in range(8)]
    segmenter = Segmenter(engine)
    (speed,) = benchmark([segmenter], frames, seconds)
    stages = speed.stages_ms()
    is_device = isinstance(engine, TensorRTEngine)  # others prepare nothing themselves
    alone = float(np.median(engine.network_ms(RUNS))) if is_device else stages["inference"]

    def run(count: int) -> float:
        return run_pipeline(FramesInMemory(frames, count), segmenter, NullSink(), Overlay(engine.spec.classes)).seconds

    few, many = FRAMES // 6, FRAMES
    a_frame = 1000 * (run(many) - run(few)) / (many - few)  # without what beginning and ending take
    before = stages["preprocessing"] + stages["inference"]
    names = f"{contestant.runtime}, {contestant.precision.upper()}"
    return (names, *(f"{ms:.2f} ms" for ms in (alone, before, stages["postprocessing"], a_frame)), f"{a_frame / alone:.3f}")


if __name__ == "__main__":
    sys.exit(main())
