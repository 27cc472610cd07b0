"""A Q/DQ or float graph as an Engine that computes what the graph says, whatever kernels the machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dlv3deploy.calibration.collect import Runner
from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs, check_batch
from dlv3deploy.core.graph import ports
from dlv3deploy.core.spec import ModelSpec

if TYPE_CHECKING:
    from onnx import ModelProto


class ExactEngine(ClosingEngine):
    """Fake quantisation in float arithmetic: every INT8 runtime agrees with it up to rounding at the grid's half-way points."""

    name = "ONNX Runtime, unoptimised, cpu"

    def __init__(self, model: ModelProto, spec: ModelSpec) -> None:
        given, result = ports(model, "the calibrated model")
        self.spec, self.output = spec, result.name
        self.input_shape = given.shape[0], 3, given.shape[2], given.shape[3]
        self.runner = Runner(model, [self.output], exact=True)

    def infer(self, batch: Batch) -> Outputs:
        check_batch(self, batch)
        outputs = self.runner(batch)[self.output]
        return np.asarray(outputs, np.float32) if outputs.dtype.kind == "f" else outputs
