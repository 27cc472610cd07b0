"""DeepLabv3 from training to a camera on an edge GPU, every step checked against the one before it.

Importing this package loads nothing heavy; torch, ONNX Runtime, TensorRT and OpenCV are imported where they are used.
"""

__version__ = "0.1.0"
