"""A checkpoint as an Engine, so that `evaluate` and `run` need nothing but the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs, check_batch
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.train.checkpoint import load_checkpoint
from dlv3deploy.train.network.deeplabv3 import DeepLabV3


class TorchEngine(ClosingEngine):
    """A model in evaluation mode; any batch, any size; returns scores. The model stays the caller's."""

    def __init__(self, model: DeepLabV3, spec: ModelSpec) -> None:
        self.model = model
        self.spec = replace(spec, output=replace(spec.output, kind="scores"))
        self.input_shape = (None, 3, None, None)
        self.device = next(model.parameters()).device
        self.name = f"PyTorch {torch.__version__}, {self.device}"

    @classmethod
    def open(cls, path: Path, output_stride: int | None = None) -> TorchEngine:
        """A checkpoint, at the output stride that it was trained at unless another is given (paper, Tables 4 and 6)."""
        model, spec = load_checkpoint(path, output_stride)
        return cls(model.to("cuda" if torch.cuda.is_available() else "cpu"), spec)

    def infer(self, batch: Batch) -> Outputs:
        check_batch(self, batch)
        with torch.inference_mode():
            scores: Outputs = self.model(torch.from_numpy(batch).to(self.device)).float().cpu().numpy()
        return scores
