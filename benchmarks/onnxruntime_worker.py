"""ONNX Runtime's static quantisation, as its documentation has it: preprocess the model, then `quantize_static` to Q/DQ.

Run by quantization.py with the file of a job.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from calibration_reader import Job, Reader

PERCENTILE = 99.99


def main() -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    job = Job.from_command_line()
    methods = {
        "min-max": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    options: dict[str, bool | float] = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": not job.float_bias,
    }
    if job.by_image:
        options["CalibStridedMinMax"] = 1  # for every method, whatever its name says
    if job.method == "percentile":
        options["CalibPercentile"] = PERCENTILE
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(job.model, str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            job.to,
            Reader(job),
            quant_format=QuantFormat.QDQ,
            per_channel=job.per_channel,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=methods[job.method],
            extra_options=options,
        )


if __name__ == "__main__":
    main()
