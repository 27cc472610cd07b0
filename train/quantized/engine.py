"""A torch graph as an Engine, so that it is validated as everything else is."""

from __future__ import annotations

import torch

from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs, check_batch
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.train.quantized.graph import TorchGraph


class GraphEngine(ClosingEngine):
    """Any batch, the graph's own size. The graph stays the caller's."""

    def __init__(self, graph: TorchGraph, spec: ModelSpec, device: torch.device) -> None:
        self.graph, self.spec, self.device = graph, spec, device
        self.input_shape = (None, 3, spec.input.height, spec.input.width)
        self.name = f"PyTorch {torch.__version__}, {device}, fake-quantised"

    def infer(self, batch: Batch) -> Outputs:
        check_batch(self, batch)
        images = torch.from_numpy(batch).to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            outputs: Outputs = self.graph(images).cpu().numpy()
        return outputs
