"""Versions of TensorRT: which module speaks which dialect, and what each can do. No other file knows a version."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from dlv3deploy.core.errors import UserError


@dataclass(frozen=True)
class Dialect:
    """A TensorRT product. `portable` ones build on a machine without a GPU, for compute capabilities named beforehand."""

    name: str
    module: str
    install: str
    oldest: tuple[int, int]
    portable: bool


TENSORRT = Dialect(
    "tensorrt", "tensorrt", "on a Jetson use JetPack's own TensorRT, elsewhere install dlv3deploy[tensorrt]", (10, 0), False
)
TENSORRT_RTX = Dialect("tensorrt-rtx", "tensorrt_rtx", "install dlv3deploy[tensorrt-rtx]", (1, 0), True)
DIALECTS = {dialect.name: dialect for dialect in (TENSORRT, TENSORRT_RTX)}


def load_dialect(dialect: Dialect) -> Any:
    """The Python bindings. Raises UserError when they are missing, broken, or too old for strongly typed networks."""
    try:
        module = importlib.import_module(dialect.module)
    except (ImportError, OSError) as error:
        raise UserError(dialect.name, f"cannot be imported ({error})", dialect.install) from error
    major, minor = (int(part) for part in module.__version__.split(".")[:2])
    if (major, minor) < dialect.oldest:
        oldest = ".".join(map(str, dialect.oldest))
        raise UserError(
            f"{dialect.name} {module.__version__}",
            f"strongly typed networks need {oldest} or newer",
            "use --backend onnxruntime",
        )
    return module


def network_flags(module: Any) -> int:
    """Strongly typed: every layer runs in the type that the ONNX file says. Newer versions know nothing else."""
    flags = module.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED)


def nearest_capability(dialect: Dialect, wanted: str) -> str:
    """The compute capability that this dialect builds for and that is nearest below the wanted one, else the lowest."""
    known = sorted(_capabilities(load_dialect(dialect)))
    number = int(wanted.replace(".", ""))
    nearest = str(max((one for one in known if one <= number), default=known[0]))
    return f"{nearest[:-1]}.{nearest[-1]}"


def _capabilities(module: Any) -> dict[int, Any]:
    """The enumerators of what a portable dialect builds for, by number: 89 for 8.9."""
    members = module.ComputeCapability.__members__.items()
    return {int(name.removeprefix("SM")): value for name, value in members if name.startswith("SM")}


def runs_on(dialect: Dialect, module: Any, capability: str) -> bool:
    """Whether its engines run on a GPU of this compute capability ("8.9"). Those of a portable dialect do on what it builds
    for, and on what is newer than all of that; TensorRT-RTX 1.7 has no 8.7 (Orin), 9.0 (H100) and 10.0."""
    if not dialect.portable:
        return True
    known = _capabilities(module)
    wanted = int(capability.replace(".", ""))
    return wanted in known or wanted > max(known)


def compute_capability_of(module: Any, text: str) -> Any:
    """The enumerator for a capability written "8.6", "86" or "sm_86". Raises UserError listing those that exist."""
    digits = text.lower().removeprefix("sm_").removeprefix("sm").replace(".", "")
    known = _capabilities(module)
    if not digits.isdecimal() or int(digits) not in known:
        listed = ", ".join(f"sm_{number}" for number in sorted(known))
        raise UserError(f"compute capability {text!r}", f"is none that {module.__name__} builds for", f"use one of {listed}")
    return known[int(digits)]
