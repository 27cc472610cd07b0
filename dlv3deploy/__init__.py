"""DeepLabv3 from training to a camera on an edge GPU, every step checked against the one before it.

Importing this package loads nothing heavy; torch, ONNX Runtime, TensorRT and OpenCV are imported where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlv3deploy.library import Segmenter

__all__ = ["Segmenter", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`Segmenter`, imported when it is asked for."""
    if name == "Segmenter":
        from dlv3deploy.library import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
