"""Generated road scenes with exact labels: for the demo, for tests and as a video source with known truth.

A `Drive` is one world seen from a moving car; `write_dataset` and `write_video` put such views on the disk.
"""

from dlv3deploy.scenes.classes import ROAD_SCENE
from dlv3deploy.scenes.drive import Drive
from dlv3deploy.scenes.writing import write_dataset, write_labels, write_video

__all__ = ["ROAD_SCENE", "Drive", "write_dataset", "write_labels", "write_video"]
