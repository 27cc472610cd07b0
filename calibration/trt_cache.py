"""TensorRT's calibration cache: the text in which implicit INT8 (TensorRT 8 and 10) keeps the scale of every tensor.

    TRT-8601-EntropyCalibration2
    image: 3c010a14
    /aspp/convs.0/Relu_output_0: 3d0b7086

NVIDIA documents no format. What is written here follows programs that are known to work, and files that users posted:

- The first line names TensorRT's version and the calibrator. The version is NV_TENSORRT_VERSION of its headers: major·1000 +
  minor·100 + patch in 8 (8.6.1 is 8601), major·10000 + minor·100 + patch in 10 (10.3.0 is 100300). It must be the version that
  builds: users report that 10 refuses a cache of 8 ("Calibration table does not match calibrator algorithm type"), calibrates
  on nothing instead and ends with a tensor "bound to nullptr" (NVIDIA/Deep-Learning-Accelerator-SW#26).
- Every other line is a tensor's name, a colon, a space, and the scale as the hexadecimal digits of a float32, highest byte
  first (NVIDIA's developer forum, topic 109781: 3c92aa10 is 0.0179).
- The scale is the step of symmetric INT8, threshold / 127, the one that a Q/DQ pair has. NVIDIA's `qdq_translator` (in
  Deep-Learning-Accelerator-SW) writes Q/DQ scales so, Model Optimizer's `import_scales_from_calib_cache` reads them so, ONNX
  Runtime's TensorRT provider multiplies by 127 for a dynamic range, and an input of 0 to 1 has 3c010a14, which is 1.0003 / 127.
- Names hold colons, spaces and brackets ("input_1:0", "onnx::Conv_329", "(Unnamed Layer* 22) [Constant]_output"): a name ends
  at the last ": ". Some readers end it earlier: ONNX Runtime's at the first colon; Model Optimizer's refuses a second ": ".
- `trtexec --calib` and DLA want EntropyCalibration2: one calibrates with that class, the other supports no other. A tensor
  without a line stays in floating point, with a warning ("Missing scale and zero-point"). TensorRT 11 has no calibrators.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import write_bytes

Calibrator = Literal["EntropyCalibration2", "MinMaxCalibration"]

HEADER = re.compile(r"TRT-(\w+)-(\w+)", re.ASCII)
LINE = re.compile(r"(?P<name>.+): (?P<bits>[0-9a-fA-F]{1,8})", re.DOTALL)  # the greedy name reaches to the last ": "
SMALLEST_SCALE = 2.0**-126  # float32's smallest normal number; readers get smaller ones wrong
VERSION_FACTORS = {8: 1000, 10: 10000}  # major version → what its header multiplies it by
FROM_TENSORRT = "supply the file that TensorRT wrote, or write it again"


@dataclass(frozen=True)
class CalibrationCache:
    """What a cache says. `version` is the header's, as it stands: "8601", "100300", and other programs' "8XXX"."""

    version: str
    calibrator: str
    scales: dict[str, float]  # tensor's name → step of symmetric INT8, in the tensor's units, in the file's order


def write_cache(path: Path, scales: Mapping[str, float], calibrator: Calibrator, trt_version: str) -> None:
    """Write `scales` (tensor's name → threshold / 127) for the TensorRT that will build, such as "8.6.1" or "10.3.0".

    The file is replaced whole or not at all. Raises UserError for another TensorRT than 8 or 10, an unknown calibrator, no
    scale, a scale that is no positive float32, or a name that a line cannot hold.
    """
    if calibrator not in get_args(Calibrator):
        raise UserError(
            f"calibrator {calibrator!r}", "is none that caches are written for", f"give {' or '.join(get_args(Calibrator))}"
        )
    if not scales:
        raise UserError(str(path), "would hold no scale, and TensorRT would calibrate on nothing", "calibrate first")
    _write(path, CalibrationCache(header_version(trt_version), calibrator, dict(scales)))


def rewrite_cache(path: Path, scales: Mapping[str, float]) -> None:
    """Put other scales under the first line that the file has. Raises UserError as reading and writing do."""
    found = read_cache(path)
    _write(path, CalibrationCache(found.version, found.calibrator, dict(scales)))


def _write(path: Path, cache: CalibrationCache) -> None:
    lines = [f"TRT-{cache.version}-{cache.calibrator}", *(_line(name, scale) for name, scale in cache.scales.items())]
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode("utf-8"))


def read_cache(path: Path) -> CalibrationCache:
    """Read a cache, whoever wrote it. Raises UserError that names the line which is no part of one."""
    try:
        header, *lines = path.read_bytes().decode("utf-8").split("\n")
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", "check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(str(path), "is no text, and so no TensorRT calibration cache", FROM_TENSORRT) from error
    found = HEADER.fullmatch(header.rstrip())
    if found is None:
        raise UserError(
            f"{path}, line 1: {header[:80]!r}", "a calibration cache begins like TRT-8601-EntropyCalibration2", FROM_TENSORRT
        )
    scales: dict[str, float] = {}
    for number, line in enumerate(lines, start=2):
        line = line.rstrip("\r")
        if not line:
            continue
        name, scale = _parsed(line, f"{path}, line {number}")
        if name in scales:
            raise UserError(f"{path}, line {number}", f"is the second scale of {name}", "keep the one that is right")
        scales[name] = scale
    if not scales:
        raise UserError(str(path), "holds no scale", FROM_TENSORRT)
    return CalibrationCache(found[1], found[2], scales)


def header_version(trt_version: str) -> str:
    """NV_TENSORRT_VERSION of a version such as "8.6.1", "8.6.1.6" or "10.3.0.post1"."""
    found = re.match(r"(\d+)\.(\d{1,2})\.(\d{1,2})(?!\d)", trt_version, re.ASCII)
    if found is None:
        raise UserError(f"TensorRT version {trt_version!r}", "is not major.minor.patch", "give one such as 8.6.1 or 10.3.0")
    major, minor, patch = map(int, found.groups())
    if major not in VERSION_FACTORS:
        remedy = "give the version that will build; TensorRT 11 and TensorRT-RTX read the Q/DQ model itself"
        raise UserError(f"TensorRT {trt_version}", "calibration caches are for TensorRT 8 and 10", remedy)
    return str(major * VERSION_FACTORS[major] + minor * 100 + patch)


def _line(name: str, scale: float) -> str:
    if not name or "\n" in name or "\r" in name or not _is_text(name):
        raise UserError(f"tensor name {name!r}", "does not fit on a line of a calibration cache", "rename the tensor")
    try:
        bits = struct.pack(">f", scale)
    except OverflowError:
        bits = struct.pack(">f", math.inf)
    _check_scale(struct.unpack(">f", bits)[0], f"tensor {name} with scale {scale}")
    return f"{name}: {bits.hex()}"


def _parsed(line: str, where: str) -> tuple[str, float]:
    """Name and scale. NVIDIA's translator drops leading zeros."""
    found = LINE.fullmatch(line)
    if found is None:
        raise UserError(f"{where}: {line[:80]!r}", "is not 'tensor: ' and up to 8 hexadecimal digits", FROM_TENSORRT)
    scale: float = struct.unpack(">f", bytes.fromhex(found["bits"].zfill(8)))[0]
    _check_scale(scale, f"{where}: {found['name']} with scale {scale}")
    return found["name"], scale


def _check_scale(scale: float, given: str) -> None:
    if not SMALLEST_SCALE <= scale < math.inf:
        rule = f"a scale is a positive float32, {SMALLEST_SCALE:.2g} or more"
        raise UserError(given, rule, "calibrate again, on images that reach this tensor")


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
