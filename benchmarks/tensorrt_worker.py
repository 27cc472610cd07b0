"""Whether TensorRT-RTX builds an ONNX file at one input size, and into what plan, with no GPU needed. Run by quantization.py.

    python benchmarks/tensorrt_worker.py MODEL HEIGHT WIDTH

Exit codes: 0 built, the plan's figures as JSON on stdout; 3 refused, others when it crashed, the reason last on stderr.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import fix_input, load_onnx
from dlv3deploy.core.progress import say
from dlv3deploy.engines.dialect import TENSORRT_RTX
from dlv3deploy.engines.tensorrt_backend import TensorRTBackend

BUILT, REFUSED = ANSWERS = (0, 3)
SHOWN = ("convolutions", "others", "bytes_moved")


def main() -> int:
    path, height, width = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    try:
        model = fix_input(load_onnx(path), (1, 3, height, width))
        plan = TensorRTBackend(TENSORRT_RTX).plan(model.SerializeToString(), path.name)
    except UserError as error:
        say(error.rule.replace("\n", " "))
        return REFUSED
    print(json.dumps({name: plan.figures()[name] for name in SHOWN}))
    return BUILT


if __name__ == "__main__":
    sys.exit(main())
