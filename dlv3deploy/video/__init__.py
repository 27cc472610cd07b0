"""From a camera, a stream or files to masks, overlays and videos: sources, sinks, overlay and pipeline.

A run is `open_source(parse_source(text))`, `open_sink(text, classes, source)`, then `run_pipeline` with both.
Importing this package loads neither OpenCV nor Pillow.
"""

from __future__ import annotations

from dlv3deploy.video.capture import open_source
from dlv3deploy.video.facts import RunFacts
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.live_page import LivePage, PageAddress, parse_page_address
from dlv3deploy.video.meter import Meter
from dlv3deploy.video.overlay import Overlay
from dlv3deploy.video.pipeline import Stream, run_pipeline, run_streams
from dlv3deploy.video.replayed import ReplayedSource
from dlv3deploy.video.sink import Segmented, Sink, Tee
from dlv3deploy.video.sinks import open_sink, open_sinks
from dlv3deploy.video.source import SourceAddress, parse_source
from dlv3deploy.video.thinned import ThinnedSource

__all__ = [
    "CapturedFrame",
    "LivePage",
    "Meter",
    "Overlay",
    "PageAddress",
    "ReplayedSource",
    "RunFacts",
    "Segmented",
    "Sink",
    "Source",
    "SourceAddress",
    "Stream",
    "Tee",
    "ThinnedSource",
    "open_sink",
    "open_sinks",
    "open_source",
    "parse_page_address",
    "parse_source",
    "run_pipeline",
    "run_streams",
]
