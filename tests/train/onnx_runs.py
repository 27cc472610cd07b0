"""What ONNX Runtime makes of a graph as it is written, to compare with."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn


def runtime_scores(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """The output, without any optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def torch_scores(graph: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return graph(torch.from_numpy(images)).numpy()
