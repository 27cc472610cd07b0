"""Frames into an engine's input and masks out of its scores, without leaving the device in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.core.frame_engine import Paint
from dlv3deploy.core.images import Frame, Mask
from dlv3deploy.core.preprocess import Geometry
from dlv3deploy.core.spec import InputSpec, OutputSpec
from dlv3deploy.engines.cuda.device import Device, Stream
from dlv3deploy.engines.cuda.frame_preparation import FramePreparation
from dlv3deploy.engines.cuda.mask_maker import MaskMaker, Painting
from dlv3deploy.engines.cuda.port import Port
from dlv3deploy.engines.cuda.repeated import Repeated


class FramesOnDevice:
    """Both ways of one execution context on a stream of its own: frames in, the network, masks out.

    `execute` queues the network on the stream, from `given` to `scores`; where their shapes are `fixed`, all that is queued for
    frames of known sizes is repeated as a graph. Nothing waits for the device but `take` and `put`, the latter for the batch
    before.
    """

    def __init__(
        self,
        device: Device,
        stream: Stream,
        ports: tuple[Port, Port],
        output: OutputSpec,
        name: str,
        execute: Callable[[], None],
        *,
        fixed: bool,
    ) -> None:
        given, scores = ports
        self._stream, self._execute, self._fixed = stream, execute, fixed
        self._repeated = Repeated(stream, name)
        self._frames = FramePreparation(device, given)
        self._masks = MaskMaker(device, scores, output, name)

    def put(self, frames: Sequence[Frame], given: InputSpec) -> None:
        """Queue a batch of H×W×3 BGR frames, which are copied before this returns, and the network behind it."""
        self._stream.synchronize()  # the batch before has been read
        if any(self._frames.gives_up(index, frame) for index, frame in enumerate(frames)):
            self._repeated.forget()
        for index, frame in enumerate(frames):
            self._frames.load(index, frame)

        def work() -> None:
            for index in range(len(frames)):
                self._frames.queue(index, given, self._stream)
            self._execute()

        try:
            if self._fixed:
                self._repeated.queue((given, tuple(frame.shape for frame in frames)), work)
            else:
                work()
        except CheckFailed:
            self._stream.synchronize()  # what was queued before reads memory that the next batch is written to
            raise

    def take(self, index: int, geometry: Geometry, paint: Paint | None = None) -> tuple[Mask, Frame | None]:
        """As `MaskMaker.take` does; where a paint is given, with the frame under the colours of the mask, of its size."""
        painting = None if paint is None else Painting(paint, self._frames.exchange_of(index))
        if self._masks.gives_up(geometry, paint):
            self._repeated.forget()
        self._masks.ready(geometry, self._stream, paint)
        key = (index, geometry, None if painting is None else (paint, int(painting.frame.address)))
        self._repeated.queue(key, lambda: self._masks.queue(index, geometry, self._stream, painting))
        return self._masks.collect(geometry, self._stream), self._masks.picture(geometry) if painting else None

    def wait(self) -> None:
        self._stream.synchronize()

    def close(self) -> None:
        self._repeated.forget()
        self._frames.close()
        self._masks.close()
