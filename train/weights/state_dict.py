"""State dicts, whoever saved them: tensors by name from a safetensors file or a pickle, and never anything that runs."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import require_file

SUPPLY = "supply a whole .safetensors, .pth or .pt file"
WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")  # under which training programs keep it
PARALLEL_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile

# What checkpoints hold beside tensors: NumPy numbers, as the best score, and the options of the program that trained.
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64")),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),  # NumPy 1's place of it
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),  # NumPy 2's
]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The weights in a file: plain names, floating-point tensors as float32, on the CPU.

    A dict that holds the weights under one of `WRAPPERS` is opened, the prefixes of `PARALLEL_PREFIXES` are taken off. Pickles
    are read with weights_only, which builds tensors and plain values and calls nothing else. Raises UserError.
    """
    require_file(path, SUPPLY)
    state = read_safetensors(path) if _is_safetensors(path) else _read_pickle(path)
    for prefix in PARALLEL_PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return {name: _plain(tensor, name, path) for name, tensor in state.items()}


def read_safetensors(path: Path, made_by: str = SUPPLY) -> dict[str, Tensor]:
    """The tensors as they are stored; `made_by` says how to get a whole file. Raises UserError."""
    from safetensors import SafetensorError, safe_open

    require_file(path, made_by)
    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(str(path), f"is no whole safetensors file ({first_line(error)})", made_by) from error


def first_line(error: BaseException) -> str:
    """What an exception says, short enough for a message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__


def _is_safetensors(path: Path) -> bool:
    """By its name, or by the brace that opens the header behind eight bytes of length."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals(HARMLESS):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the pickle machinery meets
        raise UserError(
            str(path), f"is no readable state dict ({_reason(error)})", "supply a whole file, saved from model.state_dict()"
        ) from error
    if isinstance(state, dict):
        state = next((state[wrapper] for wrapper in WRAPPERS if wrapper in state), state)
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(v, Tensor) for n, v in state.items()):
        raise UserError(str(path), "holds no state dict", "supply a dict of tensors by name")
    return dict(state)


def _reason(error: Exception) -> str:
    """torch explains at length how to run what a pickle wants to run; all that matters is what it wants, if it is one."""
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    if wanted:
        return f"it asks for {wanted[1]}, which is no tensor"
    if isinstance(error, RuntimeError) and "weights_only" not in str(error):
        return first_line(error)
    return "torch did not write it, or it is damaged"  # what others say is about pickles: a key, a buffer's length


def _plain(tensor: Tensor, name: str, path: Path) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu" or tensor.is_complex():
        raise UserError(
            str(path), f"holds {name} in a form that is no plain tensor", "supply the weights in float32 or float16"
        )
    tensor = tensor.detach()
    return tensor.float() if tensor.is_floating_point() else tensor
