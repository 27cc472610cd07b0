"""What the video runtime costs beside inference, how old frames are, and what exact postprocessing saves.

    python benchmarks/pipeline.py --shared ../shared [--minutes 10]

Writes benchmarks/results/pipeline.md; with less than ten minutes, which tries it out, prints the page.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from frames_in_memory import FramesInMemory
from machine import installed, this_machine
from markdown import markdown_table, page
from measured import last_words
from numpy.typing import NDArray
from quantization_cases import Request, built_in, open_request

from dlv3deploy.core.bilinear import Scores
from dlv3deploy.core.engine import Batch, ClosingEngine, Engine, Outputs
from dlv3deploy.core.errors import CheckFailed, Dlv3Error
from dlv3deploy.core.files import write_text
from dlv3deploy.core.images import Frame, list_images, read_frame
from dlv3deploy.core.postprocess import mask_from_scores
from dlv3deploy.core.preprocess import geometry_of
from dlv3deploy.core.progress import say
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.core.spec import InputSpec, OutputSpec
from dlv3deploy.engines.timing import Call, Limits, in_turns, milliseconds
from dlv3deploy.video import Overlay, ReplayedSource, RunFacts, Segmented, Sink, Source, run_pipeline
from dlv3deploy.video.sink import NullSink
from dlv3deploy.video.time_code import age_ms

TABLE = Path(__file__).parent / "results" / "pipeline.md"
MAP, FRAME, CLASSES = (64, 128), (1024, 2048), 19
VIEWS = (2, 4)  # of the frame, rows and columns, each of which the model sees at its own size
ROUNDS = 15
CAMERA_FPS, MODEL_FPS = 30.0, 5.0
EVERY_FRAME_S = 60.0
FULL_MINUTES = 10.0
EXPLAINED = """\
- Scores: of the VOC model, eight views of 32×32 positions side by side, the 19 classes of 21 with the most positions; three
  frames of eight VOC pictures, three of a CamVid picture cut in eight. Every method makes the same mask but for the pixels
  counted under `differ`, which is rounding: `cv2.resize` interpolates in another order.
- `all at once`: `cv2.resize` of all classes together, then NumPy's argmax; `class by class`: `cv2.resize` and a running
  maximum, which stores least. `ratio` is the faster one's time by ours. Medians of 15 runs, one method after the other.
- Every frame: the VOC model as `build-engine` makes it for ONNX Runtime on this CPU. A round is a run over 40 frames, its start
  and end included, and the bare inference of the same 40, in turns; `share` is the rate of the one by the rate of the other,
  the median of the rounds and their middle half. The frames come from memory, every one is worked on, and the masks are thrown
  away.
- Age: from a frame's time code until it is handed to the sink; the camera sends 30 frames a second, the model is held back to
  five. `memory` is the process's resident memory after the first tenth of the time and at the end."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with the models and data of the built-in names")
    parser.add_argument("--minutes", type=float, default=FULL_MINUTES, help="of the newest-frame test (default: %(default)s)")
    options = parser.parse_args()
    known = built_in(options.shared)
    facts = [
        *this_machine(None).lines(),
        f"onnxruntime {installed('onnxruntime')}, OpenCV {cv2.__version__}, NumPy {np.__version__}",
    ]
    facts += [f"date: {date.today().isoformat()}", f"command: `python benchmarks/pipeline.py {shlex.join(sys.argv[1:])}`"]
    try:
        tables = [
            f"## Exact postprocessing, {CLASSES} classes, {MAP[0]}×{MAP[1]} → {FRAME[0]}×{FRAME[1]}",
            _postprocessing(known),
            "## Every frame, MobileNetV2 at 513×513",
            _every_frame(known["voc"]),
            f"## Newest frame, {options.minutes:g} minutes",
            _newest_frame(known["camvid"], 60 * options.minutes),
        ]
    except Dlv3Error as error:
        say(f"error: {error}")
        return error.exit_code
    text = page("The video runtime", facts, "\n\n".join(tables), EXPLAINED, "benchmarks/pipeline.py")
    if options.minutes < FULL_MINUTES:
        print(text)
    else:
        write_text(TABLE, text)
        say(f"wrote {TABLE}")
    return 0


def _built(request: Request, folder: Path) -> Engine:
    """What `build-engine` makes of the model for this CPU. Raises CheckFailed when it does not."""
    from dlv3deploy.engines.open import open_engine

    command = ("build-engine", str(request.model), *request.description, "--backend", "onnxruntime", "--workspace", str(folder))
    done = subprocess.run([sys.executable, "-m", "dlv3deploy", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CheckFailed(f"dlv3deploy {shlex.join(command)}: {last_words(done.stderr)}")
    (engine,) = folder.glob("*.engine")
    return open_engine(engine)


def _median_ms(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - started_s)
    return 1000 * float(np.median(times))


def _postprocessing(known: dict[str, Request]) -> str:
    geometry = geometry_of(*FRAME, InputSpec(*FRAME))
    methods: dict[str, Callable[[Scores], NDArray[Any]]] = {
        "dlv3deploy": lambda scores: mask_from_scores(scores, geometry, OutputSpec("scores")),
        "all at once": _all_at_once,
        "class by class": _class_by_class,
    }
    rows = []
    for name, scores in _real_scores(known):
        times = {method: _median_ms(partial(make, scores), ROUNDS) for method, make in methods.items()}
        ours, *others = (make(scores) for make in methods.values())
        ratio = min(times["all at once"], times["class by class"]) / times["dlv3deploy"]
        differ = max(int(np.count_nonzero(ours != other)) for other in others)
        rows.append((name, *(f"{ms:.1f} ms" for ms in times.values()), f"{ratio:.1f}", str(differ)))
    return markdown_table(("scores", *methods, "ratio", "differ"), rows)


def _all_at_once(scores: Scores) -> NDArray[Any]:
    together = np.ascontiguousarray(scores.transpose(1, 2, 0))
    return cv2.resize(together, FRAME[::-1], interpolation=cv2.INTER_LINEAR).argmax(axis=2)


def _class_by_class(scores: Scores) -> NDArray[Any]:
    best, mask = cv2.resize(scores[0], FRAME[::-1]), np.zeros(FRAME, np.uint8)
    for index, plane in enumerate(scores[1:], 1):
        values = cv2.resize(plane, FRAME[::-1])
        mask[values > best] = index
        np.maximum(best, values, out=best)
    return mask


def _real_scores(known: dict[str, Request]) -> Iterator[tuple[str, Scores]]:
    """Six maps C×64×128 of the VOC model, from in front of its last Resize."""
    import onnx
    import onnxruntime

    model = onnx.load(known["voc"].model)
    last = [node for node in model.graph.node if node.op_type == "Resize"][-1]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(last.input[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name

    def seen(view: Frame) -> Scores:
        picture = cv2.resize(view, (513, 513))[:, :, ::-1].astype(np.float32) / 127.5 - 1
        found: Scores = session.run(None, {feed: picture.transpose(2, 0, 1)[None]})[0][0]
        return found[:, : MAP[0] // VIEWS[0], : MAP[1] // VIEWS[1]]

    pictures, count = list_images(known["voc"].images), VIEWS[0] * VIEWS[1]
    sets = [(f"VOC, {count} pictures", [read_frame(path) for path in pictures[n * count : (n + 1) * count]]) for n in range(3)]
    for path in list_images(known["camvid"].data / "val" / "images")[::34][:3]:
        frame = cv2.resize(read_frame(path), FRAME[::-1])
        halves = np.split(frame, VIEWS[0], axis=0)
        sets.append((f"CamVid {path.stem}", [view for half in halves for view in np.split(half, VIEWS[1], axis=1)]))
    for name, views in sets:
        maps = [seen(view) for view in views]
        rows = [np.concatenate(maps[start : start + VIEWS[1]], axis=2) for start in range(0, count, VIEWS[1])]
        scores = np.concatenate(rows, axis=1)
        wins = np.bincount(scores.argmax(axis=0).ravel(), minlength=len(scores))
        yield name, np.ascontiguousarray(scores[np.sort(np.argsort(-wins, kind="stable")[:CLASSES])])


def _every_frame(request: Request) -> str:
    """Runs and bare inferences of as many frames in turns, so that whatever slows the machine slows both."""
    frames = [read_frame(path) for path in list_images(request.images)[:40]]
    runs = list[RunFacts]()
    with TemporaryDirectory() as folder, _built(request, Path(folder)) as engine:
        segmenter = Segmenter(engine)
        batches = [next(iter(segmenter.views(frame))).batch for frame in frames]

        def bare() -> None:
            for batch in batches:
                engine.infer(batch)

        def run() -> None:
            runs.append(_run(FramesInMemory(frames, len(frames)), segmenter, NullSink()))

        calls: list[Call] = [lambda _: [milliseconds(bare)], lambda _: [milliseconds(run)]]
        alone, whole = (ms[:, 0] / len(frames) for ms in in_turns(calls, Limits(5.0, EVERY_FRAME_S, 8, 100)))
    stages = [facts for run in runs if None not in (facts := (run.preprocess_ms, run.latency_ms, run.postprocess_ms))]
    medians = [float(np.median([facts[stage].p50 for facts in stages])) for stage in range(3)]
    shares = alone / whole
    header = ("rounds", "frames/s", "preprocessing", "inference", "postprocessing", "inference alone", "share of its rate")
    row = (str(len(whole)), f"{1000 / np.median(whole):.2f}", *(f"{ms:.1f} ms" for ms in (*medians, float(np.median(alone)))))
    spread = f"{np.median(shares):.3f} ({np.percentile(shares, 25):.3f} to {np.percentile(shares, 75):.3f})"
    return markdown_table(header, [(*row, spread)])


def _run(source: Source, segmenter: Segmenter, sink: Sink) -> RunFacts:
    """A run to its end; Ctrl-C is no end, so that no half result is written down."""
    facts = run_pipeline(source, segmenter, sink, Overlay(segmenter.engine.spec.classes))
    if facts.interrupted:
        raise KeyboardInterrupt
    return facts


class _HeldBack(ClosingEngine):
    """`engine`, but no faster than `MODEL_FPS`."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.name, self.spec, self.input_shape = engine, engine.name, engine.spec, engine.input_shape

    def infer(self, batch: Batch) -> Outputs:
        started_s = time.monotonic()
        outputs = self._engine.infer(batch)
        time.sleep(max(0.0, 1 / MODEL_FPS - (time.monotonic() - started_s)))
        return outputs


class _Ages(Sink):
    """How old each frame was when it got here, and the memory of the process meanwhile."""

    def __init__(self) -> None:
        self.ages_ms, self.memory_mb = list[float](), list[float]()

    def write(self, result: Segmented) -> None:
        age = age_ms(result.frame.pixels, time.monotonic())
        assert age is not None
        self.ages_ms.append(age)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.memory_mb.append(pages * resource.getpagesize() / 1e6)

    def close(self) -> None:
        pass


def _newest_frame(request: Request, seconds: float) -> str:
    frames = [read_frame(path) for path in list_images(request.images)[:60]]
    sink = _Ages()
    with open_request(request) as engine:
        camera = ReplayedSource(frames, CAMERA_FPS, seconds)
        facts = _run(camera, Segmenter(_HeldBack(engine)), sink)
    assert facts.latency_ms is not None
    ages = np.percentile(sink.ages_ms, (50, 99, 100))
    early, late = sink.memory_mb[len(sink.memory_mb) // 10], sink.memory_mb[-1]
    header = ("frames", "dropped", "model", "age p50", "p99", "oldest", "oldest in model times", "memory")
    times = (f"{ms:.0f} ms" for ms in (facts.latency_ms.p50, *ages))
    row = (str(facts.frames), str(facts.dropped), *times, f"{ages[2] / facts.latency_ms.p50:.2f}")
    return markdown_table(header, [(*row, f"{early:.1f} → {late:.1f} MB")])


if __name__ == "__main__":
    sys.exit(main())
