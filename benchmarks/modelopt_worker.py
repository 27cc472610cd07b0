"""NVIDIA ModelOpt's ONNX post-training quantisation on the CPU. Run by quantization.py in ModelOpt's environment.

What stays in floating point stays FP32 instead of ModelOpt's FP16, so that rows differ by their INT8 alone.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from calibration_reader import Job, Reader


def main() -> None:
    from modelopt.onnx.quantization import quantize  # type: ignore[import-not-found, unused-ignore]  # in its environment alone

    job = Job.from_command_line()
    with tempfile.TemporaryDirectory() as folder:  # ModelOpt leaves other files beside its output
        made, given = Path(folder) / "quantised.onnx", Path(folder) / "model.onnx"
        shutil.copyfile(job.model, given)  # and writes the shapes that it infers into the very file it is given
        quantize(
            str(given),
            quantize_mode="int8",
            calibration_method=job.method,
            calibration_data_reader=Reader(job),
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=str(made),
            log_level="WARNING",
        )
        shutil.move(made, job.to)


if __name__ == "__main__":
    main()
