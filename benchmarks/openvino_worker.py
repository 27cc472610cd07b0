"""The masks of a Q/DQ model by OpenVINO on the CPU. Run by quantization.py in OpenVINO's environment.

    python benchmarks/openvino_worker.py JOB.json

The job: {"model": FILE, "spec": text of a ModelSpec, "judged": [[IMAGE, HEIGHT, WIDTH], …], "to": FILE.npz}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from quantization_masks import Judged, masks_of, write_masks

from dlv3deploy.core.engine import Batch, ClosingEngine, Outputs
from dlv3deploy.core.spec import ModelSpec


class OpenVinoEngine(ClosingEngine):
    """OpenVINO without its INT8 kernels: pairs round and all else runs in float32, as the file says.

    Those kernels saturate on a processor without VNNI and have no option for exact ones; on one with it they lose the scale
    of a resized map (`openvino_resize.py`).
    """

    def __init__(self, model: str, spec: ModelSpec) -> None:
        import openvino  # type: ignore[import-not-found, unused-ignore]  # in its environment alone

        core, options = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}
        self.compiled = core.compile_model(core.read_model(model), "CPU", options)
        batch, _, height, width = self.compiled.input(0).shape
        self.input_shape, self.spec = (batch, 3, height, width), spec
        self.name = f"OpenVINO {openvino.__version__}"

    def infer(self, batch: Batch) -> Outputs:
        return np.array(self.compiled([batch])[self.compiled.output(0)])


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    judged = [Judged(Path(image), (height, width)) for image, height, width in job["judged"]]
    with OpenVinoEngine(job["model"], ModelSpec.from_text(job["spec"], "the job")) as engine:
        write_masks(Path(job["to"]), masks_of(engine, judged))


if __name__ == "__main__":
    main()
