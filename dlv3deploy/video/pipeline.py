"""From a source through a segmenter into a sink: reading, inference and writing overlap, and nothing piles up between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.interrupts import Noted, last_resort
from dlv3deploy.core.metrics import ConfusionMatrix
from dlv3deploy.core.progress import say
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.video.feed import Feed
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.newest import NewestFrame
from dlv3deploy.video.overlay import Overlay
from dlv3deploy.video.pace import Pace
from dlv3deploy.video.prefetch import Prefetch
from dlv3deploy.video.sink import FrameWork, Segmented, Sink
from dlv3deploy.video.time_code import age_ms
from dlv3deploy.video.timing import Percentiles, Times
from dlv3deploy.video.writer import Writer, writer_for

STUCK_AFTER_S = 1.0
OnFrame = Callable[[int, int, float], None]  # frames so far, dropped so far, inference of the last one in ms


@dataclass(frozen=True)
class RunFacts:
    """What a run did. `latency_ms` is inference alone; the percentiles are None when no frame was worked on.

    Times are of all views of a frame together. `delay_ms`, for live sources only, is from the capture of a frame until its mask
    was ready, `glass_ms` the same from the time code that frames carry, None where none does; a frame is `late` when its delay
    was more than twice the work on it. `failed` frames could not be decoded, and `reconnects` is how often the source was lost
    and found again. `miou` is against the true masks of a source that knows them, in the classes of the model.
    """

    frames: int
    dropped: int
    seconds: float
    frames_per_second: float
    latency_ms: Percentiles | None
    preprocess_ms: Percentiles | None
    postprocess_ms: Percentiles | None
    delay_ms: Percentiles | None
    glass_ms: Percentiles | None
    interrupted: bool
    late: int = 0
    failed: int = 0
    reconnects: int = 0
    miou: float | None = None

    def summary(self) -> str:
        """`221 frames in 12.3 s, 18.0 frames/s, inference 41 ms p50, 0 dropped`"""
        inference = f"inference {self.latency_ms.p50:.0f} ms p50, " if self.latency_ms else ""
        delay = f", {self.delay_ms.p50:.0f} ms from capture to mask" if self.delay_ms else ""
        counts = {"late": self.late, "failed": self.failed, "reconnects": self.reconnects}
        others = "".join(f", {count} {name}" for name, count in counts.items() if count)
        truth = f", mIoU {self.miou:.3f} against the true masks" if self.miou is not None else ""
        return (
            f"{self.frames} frames in {self.seconds:.1f} s, {self.frames_per_second:.1f} frames/s, "
            f"{inference}{self.dropped} dropped{others}{delay}{truth}{', interrupted' if self.interrupted else ''}"
        )


def run_pipeline(
    source: Source,
    segmenter: Segmenter,
    sink: Sink,
    overlay: Overlay,
    *,
    max_frames: int | None = None,
    max_fps: float | None = None,
    on_frame: OnFrame | None = None,
) -> RunFacts:
    """Run until the source ends, the sink is `stopped`, `max_frames` were worked on, or Ctrl-C.

    Live sources give their newest frame, others every frame, and no more than `max_fps` a second. Inference happens in the
    calling thread. `source` and `sink` are closed in every case, with all results so far written; the first error of any thread
    is then raised. Ctrl-C and SIGTERM are no error: the facts say `interrupted`. When the work on a frame does not end then,
    the process does: what was written is completed, the exit code is 130.
    """
    classes = segmenter.engine.spec.classes
    truth = ConfusionMatrix(classes) if source.truth_classes == classes else None
    work, pace = _Work(segmenter, on_frame, truth), Pace(max_fps)
    started_s = time.monotonic()
    interrupted = False
    with source, writer_for(sink, overlay) as writer:
        if max_frames is not None and max_frames < 1:
            raise UserError(f"{max_frames} frames", "a run has at least one", "give 1 or more, or leave the limit out")
        try:
            with (
                last_resort(STUCK_AFTER_S, lambda: _leave(writer)),
                NewestFrame(source) if source.live else Prefetch(source) as feed,
            ):
                while (frame := _next(feed, pace)) is not None:
                    writer.write(work.on(frame, feed))
                    if sink.stopped or work.frames == max_frames:
                        break
        except KeyboardInterrupt:
            interrupted = writer.hurried = True
    seconds = time.monotonic() - started_s
    return RunFacts(
        frames=work.frames,
        dropped=work.dropped,
        seconds=seconds,
        frames_per_second=work.frames / seconds,
        latency_ms=work.inference.percentiles(),
        preprocess_ms=work.preparation.percentiles(),
        postprocess_ms=work.finishing.percentiles(),
        delay_ms=work.delay.percentiles() if source.live else None,
        glass_ms=work.glass.percentiles(),
        interrupted=interrupted or writer.interrupted,
        late=work.late if source.live else 0,
        failed=source.failed,
        reconnects=source.reconnects,
        miou=truth.compute().miou if truth is not None and work.frames else None,
    )


def _leave(writer: Writer) -> None:
    """What is done for a run that is stuck in the network or in a window."""
    say(f"the work on a frame has not ended {STUCK_AFTER_S:g} s after Ctrl-C; leaving it, and completing what was written")
    writer.hurried = True
    writer.finish(Noted())


def _next(feed: Feed, pace: Pace) -> CapturedFrame | None:
    """The next frame, once it is its turn: asked for only then, so that a live one is new."""
    pace.wait()
    return feed.read()


class _Work:
    """Segments frames one by one and collects how long each step took."""

    def __init__(self, segmenter: Segmenter, on_frame: OnFrame | None, truth: ConfusionMatrix | None) -> None:
        self.frames = self.dropped = self.late = 0
        self.preparation, self.inference, self.finishing, self.delay, self.glass = (Times() for _ in range(5))
        self._segmenter, self._on_frame, self._truth = segmenter, on_frame, truth

    def on(self, frame: CapturedFrame, feed: Feed) -> Segmented:
        preparing_s = inferring_s = 0.0
        answers, mark_s = [], time.monotonic()
        for view in self._segmenter.views(frame.pixels):
            prepared_s = time.monotonic()
            answers.append(self._segmenter.infer(view))
            preparing_s += prepared_s - mark_s
            mark_s = time.monotonic()
            inferring_s += mark_s - prepared_s
        mask = self._segmenter.finish(answers)
        end_s = time.monotonic()
        self.preparation.collect(preparing_s)
        self.inference.collect(inferring_s)
        self.finishing.collect(end_s - mark_s)
        self.delay.collect(end_s - frame.time_s)
        if (age := age_ms(frame.pixels, end_s)) is not None:
            self.glass.collect(age / 1000)
        self.frames += 1
        self.late += end_s - frame.time_s > 2 * (preparing_s + inferring_s + end_s - mark_s)
        if self._truth is not None and frame.truth is not None:
            self._truth.collect(mask, frame.truth)
        self.dropped = feed.dropped
        if self._on_frame is not None:
            self._on_frame(self.frames, self.dropped, inferring_s * 1000)
        stages = {"preprocessing": preparing_s, "inference": inferring_s, "postprocessing": end_s - mark_s}
        return Segmented(frame, mask, work=FrameWork(stages, end_s, self.dropped))
