"""What a run did, and the tally that is kept of it frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

from dlv3deploy.core.classes import Classes
from dlv3deploy.core.images import Mask
from dlv3deploy.core.metrics import ConfusionMatrix
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.sink import FrameWork
from dlv3deploy.video.time_code import age_ms
from dlv3deploy.video.timing import Percentiles, Times


@dataclass(frozen=True)
class RunFacts:
    """What a run did, of several sources each until its last frame. `latency_ms` is inference alone; the percentiles are None
    when no frame was worked on. Where a device has the next frame before the mask of the one before is read, times are what
    the run waited, not what the device worked.

    Times are of all views of a frame together; preprocessing and inference are of the whole batch that it was in. `delay_ms`,
    for live sources only, is from the capture of a frame until its mask was ready, `glass_ms` the same from the time code that
    frames carry, None where none does; a frame is `late` when its delay was more than twice the work on it. `failed` frames
    could not be decoded, and `reconnects` is how often the source was lost and found again. `miou` is against the true masks of
    a source that knows them, in the classes of the model.
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
            f"{self.frames} frame{'s' * (self.frames != 1)} in {self.seconds:.1f} s, {self.frames_per_second:.1f} frames/s, "
            f"{inference}{self.dropped} dropped{others}{delay}{truth}{', interrupted' if self.interrupted else ''}"
        )


STAGES = ("preprocessing", "inference", "postprocessing")


class Tally:
    """Of one source: what its frames took, and how the masks do against the truth where the source knows it."""

    def __init__(self, source: Source, classes: Classes) -> None:
        self.frames = self.dropped = self.late = 0
        self.last_s: float | None = None  # `time.monotonic()` when its last mask was ready
        self._source = source
        self._stages = {name: Times() for name in STAGES}
        self._delay, self._glass = Times(), Times()
        self._truth = ConfusionMatrix(classes) if source.truth_classes == classes else None

    def collect(self, frame: CapturedFrame, mask: Mask, work: FrameWork) -> None:
        self.frames += 1
        self.last_s = work.ended_s
        self.dropped = work.dropped
        for name, seconds in work.stages_s.items():
            self._stages[name].collect(seconds)
        delay_s = work.ended_s - frame.time_s
        self._delay.collect(delay_s)
        self.late += delay_s > 2 * sum(work.stages_s.values())
        if self._source.live and (age := age_ms(frame.pixels, work.ended_s)) is not None:
            self._glass.collect(age / 1000)
        if self._truth is not None and frame.truth is not None:
            self._truth.collect(mask, frame.truth)

    def facts(self, seconds: float, interrupted: bool) -> RunFacts:
        preparing, inferring, finishing = (self._stages[name].percentiles() for name in STAGES)
        return RunFacts(
            frames=self.frames,
            dropped=self.dropped,
            seconds=seconds,
            frames_per_second=self.frames / seconds,
            latency_ms=inferring,
            preprocess_ms=preparing,
            postprocess_ms=finishing,
            delay_ms=self._delay.percentiles() if self._source.live else None,
            glass_ms=self._glass.percentiles(),
            interrupted=interrupted,
            late=self.late if self._source.live else 0,
            failed=self._source.failed,
            reconnects=self._source.reconnects,
            miou=self._truth.compute().miou if self._truth is not None and self.frames else None,
        )
