"""Versions of TensorRT: which module speaks which dialect, and what each can do. No other file knows a version.

8.6 takes precisions as flags of the builder, 10 as types in the graph or as flags, 11 and TensorRT-RTX as types alone. What
some have and others have not is asked for by `has`; a test holds every name in our code against the API of each version.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.engines.tensorrt_options import TensorRTOptions, capability_digits, capability_named


@dataclass(frozen=True)
class Dialect:
    """A TensorRT product. `portable` ones build on a machine without a GPU, for compute capabilities named beforehand."""

    name: str
    module: str
    install: str
    oldest: tuple[int, int]
    portable: bool


LAST_WITH_DLA = (10, 7)
FIRST_WITH_BF16 = (8, 0)  # compute capability
FIRST_WITH_INT64 = (10,)  # which older ones narrow to 32 bits
OPEN = -1  # a dimension that a network leaves open
TENSORRT = Dialect(
    "tensorrt", "tensorrt", "on a Jetson use JetPack's own TensorRT, elsewhere install dlv3deploy[tensorrt]", (8, 6), False
)
TENSORRT_RTX = Dialect("tensorrt-rtx", "tensorrt_rtx", "install dlv3deploy[tensorrt-rtx]", (1, 0), True)
DIALECTS = {dialect.name: dialect for dialect in (TENSORRT, TENSORRT_RTX)}


def load_dialect(dialect: Dialect) -> Any:
    """The Python bindings. Raises UserError when they are missing, broken, or older than what this package is written for."""
    try:
        module = importlib.import_module(dialect.module)
    except (ImportError, OSError) as error:
        raise UserError(dialect.name, f"cannot be imported ({error})", dialect.install) from error
    if version_of(module.__version__)[:2] < dialect.oldest:
        oldest = ".".join(map(str, dialect.oldest))
        raise UserError(f"{dialect.name} {module.__version__}", f"is older than {oldest}", "use --backend onnxruntime")
    return module


def has(module: Any, name: str) -> bool:
    """Whether the bindings have a class or a member of one, such as "BuilderFlag.FP16"."""
    owner, _, member = name.partition(".")
    return hasattr(module, owner) and (not member or hasattr(getattr(module, owner), member))


def require_types(module: Any, options: TensorRTOptions, types: Collection[str]) -> None:
    """Raise UserError where a network cannot have a type of the graph: BF16 is for strongly typed ones here, Q/DQ for GPUs."""
    if "int8" in types and options.dla_core is not None:
        rule = "a DLA takes INT8 from a calibration cache, not from Q/DQ"
        raise UserError("--int8 with --dla", rule, "use --fp16, or trtexec with model.int8.implicit.onnx and its cache")
    older = [text for text in options.capabilities if version_of(capability_named(text)) < FIRST_WITH_BF16]
    if "bf16" in types and older:
        rule = f"compute capability {older[0]} has no BF16, GPUs since Ampere (8.0) do"
        raise UserError("--bf16", rule, "use --fp16")
    if "bf16" in types and not is_strongly_typed(module, options):
        raise UserError(f"--bf16 with TensorRT {module.__version__}", "needs 10.0 or newer, and no DLA", "use --fp16")


def is_strongly_typed(module: Any, options: TensorRTOptions) -> bool:
    """Whether every layer runs in the type that the ONNX file says. DLA takes its precision from flags."""
    return has(module, "NetworkDefinitionCreationFlag.STRONGLY_TYPED") and options.dla_core is None


def network_flags(module: Any, options: TensorRTOptions) -> int:
    """What a network is created with: its batch dimension is in the graph, and its types are where the dialect has that."""
    flags = 0
    if has(module, "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"):
        flags |= 1 << int(module.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    if has(module, "NetworkDefinitionCreationFlag.STRONGLY_TYPED"):
        flags |= int(is_strongly_typed(module, options)) << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return flags


def configure(module: Any, config: Any, options: TensorRTOptions, types: Collection[str]) -> None:
    """Set a builder's configuration to the options; `types` ("fp16", "int8") are those that the graph has besides FP32.

    Raises UserError, naming the option, where this dialect cannot do what is asked for.
    """
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # so that an inspector knows the engine's kernels
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mb * 1_000_000)
    if options.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.refittable:
        config.set_flag(module.BuilderFlag.REFIT)
    if options.stripped and has(module, "BuilderFlag.STRIP_PLAN"):
        config.set_flag(module.BuilderFlag.STRIP_PLAN)
        config.set_flag(module.BuilderFlag.REFIT_IDENTICAL)  # so kernels may be chosen by what the weights are
    if options.dla_core is not None:
        config.default_device_type = module.DeviceType.DLA
        config.DLA_core = options.dla_core
        config.set_flag(module.BuilderFlag.GPU_FALLBACK)
    if not is_strongly_typed(module, options):
        _allow(module, config, {*types, "fp16"} if options.dla_core is not None else types)
    if has(module, "ComputeCapability") and options.capabilities:
        config.num_compute_capabilities = len(options.capabilities)
        for index, text in enumerate(options.capabilities):
            config.set_compute_capability(compute_capability_of(module, text), index)


def add_profile(builder: Any, network: Any, config: Any, options: TensorRTOptions) -> None:
    """Where the batch of the input is open, have the engine take 1 to `most_images`, and be fastest at the most."""
    given = network.get_input(0)
    batch, *size = given.shape
    if batch == OPEN:
        profile = builder.create_optimization_profile()
        profile.set_shape(given.name, (1, *size), (options.most_images, *size), (options.most_images, *size))
        config.add_optimization_profile(profile)


def _allow(module: Any, config: Any, types: Collection[str]) -> None:
    """Let the builder of a weakly typed network use these types, and hold it to those that the graph has."""
    if has(module, "BuilderFlag.FP16"):
        if "fp16" in types:
            config.set_flag(module.BuilderFlag.FP16)
        if "int8" in types:
            config.set_flag(module.BuilderFlag.INT8)
        if types:
            config.set_flag(module.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)


def require_options(dialect: Dialect, module: Any, options: TensorRTOptions) -> None:
    """Raise UserError, naming the option, where this dialect cannot do what is asked for."""
    if options.capabilities and not dialect.portable:
        raise UserError("--target", f"{dialect.name} always builds for this machine's GPU", "leave it out")
    for text in options.capabilities:
        compute_capability_of(module, text)
    asked = {"--version-compatible": options.version_compatible, "--hardware-compatible": options.hardware_compatible}
    for option in (name for name, is_asked in asked.items() if is_asked):
        if dialect.portable:
            rule = f"{dialect.name} has no such engines: they are for its own version, and for every GPU that is named"
            raise UserError(option, rule, "leave it out")
    if options.dla_core is not None and (dialect.portable or version_of(module.__version__)[:2] > LAST_WITH_DLA):
        rule = f"{dialect.name} {module.__version__} does not build for it, TensorRT 10.7 was the last that did"
        raise UserError("--dla", rule, "use the TensorRT of JetPack 6")
    for option, is_asked in {"--refittable": options.refittable, "--strip-plan": options.stripped}.items():
        if is_asked and not (has(module, "OnnxParserRefitter") and options.dla_core is None):
            raise UserError(option, "needs TensorRT 10.0 or newer, and no DLA", "leave it out")
    if options.dla_core is not None and options.most_images > 1:
        raise UserError("--batch with --dla", "a DLA takes batches of one size alone", "leave one of them out")


def hold_types(module: Any, network: Any, options: TensorRTOptions, types: Collection[str]) -> None:
    """Keep in single precision, where a network is weakly typed, what a graph in half precision keeps there."""
    if has(module, "BuilderFlag.FP16") and not is_strongly_typed(module, options) and "fp16" in types:
        kept = (module.LayerType.REDUCE, module.LayerType.RESIZE, module.LayerType.SOFTMAX, module.LayerType.TOPK)
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            if layer.type in kept and layer.get_input(0).dtype == module.float32:
                layer.precision = module.float32


def give_weights(module: Any, engine: Any, logger: Any, model: bytes) -> None:
    """Put the weights of an ONNX model of the same graph into an engine.

    Raises CheckFailed where it takes none, or some do not fit.
    """
    if not engine.refittable:
        raise CheckFailed("it was refitted before, and this version kept no place for more")
    if has(module, "OnnxParserRefitter"):
        try:
            refitter = module.Refitter(engine, logger)
            reader = module.OnnxParserRefitter(refitter, logger)
            fits = reader.refit_from_bytes(model) and refitter.refit_cuda_engine()
        except (TypeError, RuntimeError) as error:  # how the bindings tell of what TensorRT cannot make
            raise CheckFailed(str(error)) from error
        if not fits:
            said = [reader.get_error(index).desc() for index in range(reader.num_errors)]
            raise CheckFailed("; ".join(said) or "its weights do not fit")
    else:
        raise CheckFailed("this version takes no weights from ONNX")


def with_weights(module: Any, engine: Any) -> bytes:
    """A refittable engine with the weights that it was given, to be refitted again where the dialect keeps that."""
    if has(module, "SerializationFlag.INCLUDE_REFIT"):
        config = engine.create_serialization_config()
        config.clear_flag(module.SerializationFlag.EXCLUDE_WEIGHTS)
        config.set_flag(module.SerializationFlag.INCLUDE_REFIT)
        return bytes(engine.serialize_with_config(config))
    return bytes(engine.serialize())


def version_of(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (10, 3, 0) for "10.3.0b6"."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def takes_engines_of(options: TensorRTOptions, built: str, installed: str) -> bool:
    """Whether an engine of TensorRT `built` is for `installed` too: for the same version, or a later one of its major version
    where it was built to be compatible."""
    then, now = version_of(built), version_of(installed)
    return built == installed or (options.version_compatible and then[:1] == now[:1] and now >= then)


def nearest_capability(dialect: Dialect, wanted: str) -> str:
    """The compute capability that this dialect builds for and that is nearest below the wanted one, else the lowest."""
    known = sorted(_capabilities(load_dialect(dialect)))
    number = int(wanted.replace(".", ""))
    nearest = str(max((one for one in known if one <= number), default=known[0]))
    return f"{nearest[:-1]}.{nearest[-1]}"


def _capabilities(module: Any) -> dict[int, Any]:
    """The enumerators of what a portable dialect builds for, by number: 89 for 8.9."""
    if has(module, "ComputeCapability"):
        members = module.ComputeCapability.__members__.items()
        return {int(name.removeprefix("SM")): value for name, value in members if name.startswith("SM")}
    return {}


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
    digits = capability_digits(text)
    known = _capabilities(module)
    if not digits.isdecimal() or int(digits) not in known:
        listed = ", ".join(f"sm_{number}" for number in sorted(known))
        raise UserError(
            f"compute capability {text!r}",
            f"is none that {_product(module)} builds for",
            f"use one of {listed}",
        )
    return known[int(digits)]


def _product(module: Any) -> str:
    """What users call it: its name without what Python asks of names."""
    return str(module.__name__).replace("_", "-")
