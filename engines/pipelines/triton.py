"""A model repository for NVIDIA Triton: `NAME/config.pbtxt`, `NAME/labels.txt` and the engine, `NAME/1/model.plan` or `.onnx`.

The form is `ModelConfig` of Triton's `model_config.proto`. Triton hands tensors on as they are, so whoever asks it normalises
frames and makes masks of scores; how stands in the configuration's parameters, in the words of the spec.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing, write_text
from dlv3deploy.core.graph import Port
from dlv3deploy.core.spec import ModelSpec
from dlv3deploy.engines.dialect import FIRST_WITH_INT64, version_of
from dlv3deploy.engines.dialect import TENSORRT as TENSORRT_DIALECT
from dlv3deploy.engines.manifest import Manifest
from dlv3deploy.engines.providers import TENSORRT

PLATFORMS = {"tensorrt": ("tensorrt_plan", "model.plan"), "onnxruntime": ("onnxruntime_onnx", "model.onnx")}
TYPES = {
    "FLOAT": "TYPE_FP32",
    "FLOAT16": "TYPE_FP16",
    "BFLOAT16": "TYPE_BF16",
    "UINT8": "TYPE_UINT8",
    "INT8": "TYPE_INT8",
    "INT32": "TYPE_INT32",
}
LABELS = "labels.txt"
ACCELERATED = ('optimization { execution_accelerators { gpu_execution_accelerator [ { name: "tensorrt" } ] } }',)


def write_triton(folder: Path, name: str, engine: Path, manifest: Manifest, ports: tuple[Port, Port], batch: int = 1) -> Path:
    """Write the model NAME into the repository `folder`; `ports` are those of the engine, for one image. Returns its folder.

    Of an engine that takes up to `batch` images, Triton puts requests together that wait at the same time.

    Raises UserError where Triton has no backend for the engine, or the folder cannot be written.
    """
    if manifest.builder.name not in PLATFORMS:
        known = " or ".join(PLATFORMS)
        raise UserError("--export triton", f"Triton runs no engines of {manifest.builder.name}", f"use --backend {known}")
    platform, file = PLATFORMS[manifest.builder.name]
    model = folder / name
    with replacing(model / "1" / file) as fresh:
        shutil.copyfile(engine, fresh)
    write_text(model / LABELS, "".join(f"{label}\n" for label in manifest.spec.classes.names))
    write_text(model / "config.pbtxt", _config(name, platform, manifest, ports, batch))
    return model


def _config(name: str, platform: str, manifest: Manifest, ports: tuple[Port, Port], batch: int) -> str:
    given, result = ports if batch == 1 else (replace(port, shape=port.shape[1:]) for port in ports)
    kind = "KIND_CPU" if manifest.target.device.startswith("cpu") else "KIND_GPU"
    has_int64 = manifest.builder.name != TENSORRT_DIALECT.name or version_of(manifest.builder.version) >= FIRST_WITH_INT64
    types = {**TYPES, "INT64": "TYPE_INT64" if has_int64 else "TYPE_INT32"}
    lines = [
        f"name: {_text(name)}",
        f"platform: {_text(platform)}",
        f"max_batch_size: {batch if batch > 1 else 0}",
        *(("dynamic_batching { }",) if batch > 1 else ()),
        *_tensor("input", given, types[given.element]),
        *_tensor("output", result, types[result.element], f"label_filename: {_text(LABELS)}"),
        f"instance_group [ {{ kind: {kind} count: 1 {_accelerator(manifest)}}} ]",
        *(ACCELERATED if TENSORRT in manifest.builder.flags.get("providers", ()) else ()),
    ]
    for key, value in _parameters(manifest.spec).items():
        lines.append(f"parameters {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}")
    return "\n".join(lines) + "\n"


def _accelerator(manifest: Manifest) -> str:
    """The DLA of an engine for one."""
    core = manifest.builder.flags.get("dla_core")
    return "" if core is None else f"secondary_devices [ {{ kind: KIND_NVDLA device_id: {core} }} ] "


def _tensor(field: str, port: Port, kind: str, *further: str) -> Sequence[str]:
    dims = ", ".join(map(str, port.shape))
    return (f"{field} [", f"  {{ name: {_text(port.name)} data_type: {kind} dims: [ {dims} ] {' '.join(further)} }}", "]")


def _parameters(spec: ModelSpec) -> dict[str, str]:
    """What a client must know: mean and std in 8-bit pixel units, the resize rule, how scores become a mask."""
    given, output = spec.input, spec.output
    return {
        "colour_order": given.colour_order,
        "mean": ",".join(f"{value:g}" for value in given.mean),
        "std": ",".join(f"{value:g}" for value in given.std),
        "resize": given.resize,
        "output": output.kind,
        "coordinates": output.coordinates,
        "shift": f"{output.shift:g}",
        "ignore_index": str(spec.classes.ignore_index),
    }


def _text(value: str) -> str:
    """A string of protobuf's text format."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
