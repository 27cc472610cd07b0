"""`dlv3deploy doctor`: what works on this machine, what does not, and the command that mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from dlv3deploy.commands.options import JsonOption, WorkspaceOption
from dlv3deploy.core.workspace import DEFAULT_ROOT

EXECUTION_PROVIDERS = ("CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider")


@dataclass(frozen=True)
class Finding:
    """One line of the report; `remedy` is empty where nothing is to be done."""

    what: str
    works: bool
    found: str
    remedy: str = ""


def doctor(workspace: WorkspaceOption = DEFAULT_ROOT, json_output: JsonOption = False) -> None:
    """Check this machine: Python, GPU, backends, video, disk."""
    import json

    findings = [
        check() for check in (_python, _gpu, _torch, _onnxruntime, _tensorrt, _tensorrt_rtx, _cuda, _opencv, _window, _cameras)
    ]
    findings.append(_disk(workspace))
    if json_output:
        print(json.dumps({"checks": [asdict(finding) for finding in findings]}, ensure_ascii=False))
        return
    from rich.table import Table
    from rich.text import Text

    from dlv3deploy.commands.tables import print_table

    table = Table("", "what", "found", "to mend it")
    for finding in findings:
        mark = Text("✓", style="green") if finding.works else Text("–", style="yellow")
        table.add_row(mark, finding.what, finding.found, finding.remedy)
    print_table("what works on this machine", table)


def _python() -> Finding:
    import platform

    from dlv3deploy import __version__

    return Finding("Python", True, f"{platform.python_version()} on {platform.machine()}, dlv3deploy {__version__}")


def _gpu() -> Finding:
    from dlv3deploy.engines.gpu import find_gpu

    gpu = find_gpu()
    if gpu is None:
        return Finding(
            "NVIDIA GPU",
            False,
            "none, or no driver; everything runs on the CPU",
            "nvidia-smi tells whether the driver sees a card",
        )
    return Finding("NVIDIA GPU", True, f"{gpu.name}, compute capability {gpu.compute_capability}, driver for CUDA {gpu.driver}")


def _version(module: str) -> str:
    import importlib

    return str(importlib.import_module(module).__version__)


def _package(what: str, module: str, extra: str, describe: Callable[[], str]) -> Finding:
    try:
        version = _version(module)
    except Exception as error:  # noqa: BLE001 (a broken installation raises anything: what this command is for)
        reason = "not installed" if isinstance(error, ModuleNotFoundError) else str(error).splitlines()[0]
        return Finding(what, False, reason, f"pip install 'dlv3deploy[{extra}]'")
    return Finding(what, True, f"{version}{describe()}")


def _torch() -> Finding:
    def device() -> str:
        import torch

        return f", CUDA on {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else ", CPU"

    return _package("PyTorch (train, export)", "torch", "train", device)


def _onnxruntime() -> Finding:
    def providers() -> str:
        import onnxruntime

        return ", " + ", ".join(
            p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers() if p in EXECUTION_PROVIDERS
        )

    return _package("ONNX Runtime", "onnxruntime", "onnxruntime", providers)


def _tensorrt() -> Finding:
    return _package("TensorRT", "tensorrt", "tensorrt", str)


def _tensorrt_rtx() -> Finding:
    def ability() -> str:
        from dlv3deploy.engines.gpu import find_gpu

        return "" if find_gpu() else ", builds engines here but cannot run them without a GPU"

    return _package("TensorRT-RTX", "tensorrt_rtx", "tensorrt-rtx", ability)


def _cuda() -> Finding:
    """cuda-python before PyCUDA, as engines have it, and what compiles the kernels for frames and masks."""
    from importlib.metadata import version
    from importlib.util import find_spec
    from shutil import which

    def compiler() -> str:
        from cuda.bindings import nvrtc

        try:
            _, major, minor = nvrtc.nvrtcVersion()
        except RuntimeError:
            return ", no NVRTC: frames and masks stay on the processor (pip install nvidia-cuda-nvrtc)"
        return f", kernels by NVRTC {major}.{minor}"

    what = "CUDA from Python (runs engines)"
    found = _package(what, "cuda.bindings", "cuda", compiler)
    if found.works or find_spec("pycuda") is None:
        return found
    nvcc = "nvcc" if which("nvcc") else "nothing (nvcc is not on PATH)"
    return Finding(what, True, f"PyCUDA {version('pycuda')}, kernels by {nvcc}")


def _opencv() -> Finding:
    def abilities() -> str:
        import cv2

        text = cv2.getBuildInformation()
        found = [
            name
            for name in ("FFMPEG", "GStreamer", "v4l/v4l2")
            if f"{name}:" in text and "YES" in text.split(f"{name}:")[1].splitlines()[0]
        ]
        return ", video by " + (", ".join(found) or "nothing")

    return _package("OpenCV", "cv2", "video", abilities)


def _window() -> Finding:
    import os

    try:
        import cv2

        gui = cv2.currentUIFramework()
    except Exception:  # noqa: BLE001 (as in _package; an OpenCV without windows raises here too)
        gui = ""
    if not gui:
        return Finding(
            "window",
            False,
            "this OpenCV has no windows",
            "apt install libgl1 libglib2.0-0; pip uninstall opencv-python-headless; pip install opencv-python",
        )
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return Finding(
            "window", False, "no display; use --sink FILE.mp4 or --sink none", "log in at the screen, or set DISPLAY"
        )
    return Finding("window", True, gui)


def _cameras() -> Finding:
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        return Finding("camera", False, "no /dev/video*", "plug one in, or use --source FILE")
    return Finding("camera", True, ", ".join(map(str, devices)))


def _disk(workspace: Path) -> Finding:
    import shutil

    folder = next(p for p in (workspace.resolve(), *workspace.resolve().parents) if p.exists())
    free = shutil.disk_usage(folder).free / 1e9
    return Finding("disk", free > 1, f"{free:.1f} GB free for {workspace}", "" if free > 1 else "free some space")
