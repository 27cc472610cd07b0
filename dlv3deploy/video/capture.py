"""Opening what an address names."""

from __future__ import annotations

from dlv3deploy.video.camera import CameraSource
from dlv3deploy.video.drawn import DrawnSource
from dlv3deploy.video.frames import CapturedFrame, Source
from dlv3deploy.video.gstreamer import GStreamerSource
from dlv3deploy.video.pictures import PictureSource
from dlv3deploy.video.source import SourceAddress
from dlv3deploy.video.stream import StreamSource
from dlv3deploy.video.video_file import VideoFileSource

__all__ = ["CapturedFrame", "Source", "open_source"]


def open_source(address: SourceAddress) -> Source:
    """The opened source, its first frame already read. Raises UserError when it delivers none."""
    match address.kind:
        case "camera":
            return CameraSource(address)
        case "stream":
            return StreamSource(address)
        case "gstreamer" | "csi":
            return GStreamerSource(address)
        case "drawn":
            return DrawnSource(address)
        case "file":
            return VideoFileSource(address)
        case "image" | "folder" | "glob":
            return PictureSource(address)
