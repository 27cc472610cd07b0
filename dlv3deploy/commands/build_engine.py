"""`dlv3deploy build-engine`: from an ONNX file to an engine for this machine or another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlv3deploy.commands.options import (
    SIZE,
    ClassesOption,
    IgnoreIndexOption,
    MeanOption,
    OutputOption,
    StdOption,
    WorkspaceOption,
    describe,
    numbers,
    parse_choice,
)
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace

FALLING_BACK_TO = ("fp32", "bf16", "fp16", "int8")  # tuning keeps the earlier one unless a later one is faster

if TYPE_CHECKING:
    from onnx import ModelProto

    from dlv3deploy.core.spec import ModelSpec
    from dlv3deploy.engines.cache import EngineCache
    from dlv3deploy.engines.request import EngineRequest, Precision


def build_engine(
    model: Annotated[Path | None, typer.Argument(help="ONNX file; default: the workspace's model.onnx.")] = None,
    workspace: WorkspaceOption = DEFAULT_ROOT,
    int8: Annotated[bool, typer.Option("--int8", help="INT8 convolutions, calibrated on images.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision; the default on a GPU.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="BF16, for TensorRT on GPUs since Ampere.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="Single precision; the default on a CPU.")] = False,
    backend: Annotated[
        str | None, typer.Option(help="onnxruntime, tensorrt or tensorrt-rtx; default: the best one here.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="ONNX Runtime: cpu, cuda or tensorrt; default: cuda where it is, otherwise cpu.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Compute capability that TensorRT-RTX builds for, such as sm_89; may be repeated.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of calibration images; default: what `calibrate` made, else the model's training data."),
    ] = None,
    calibration_images: Annotated[int | None, typer.Option(help="How many of them to use; default: 100.", min=1)] = None,
    size: Annotated[str | None, typer.Option(help=f"Input {SIZE} of an ONNX file that leaves it open.")] = None,
    batch: Annotated[
        int, typer.Option(help="For 1 to so many images at once, of an ONNX file that leaves the batch open.", min=1)
    ] = 1,
    rewrites: Annotated[
        str | None,
        typer.Option(
            help="Exact: none, or some of dead-taps,image-pooling,regions,sub-grids,head; default: the first two for TensorRT, "
            "and head where a graph upsamples logits."
        ),
    ] = None,
    workspace_mb: Annotated[
        int | None,
        typer.Option(help="TensorRT: MB of scratch memory that kernels may take; default: its own choice.", min=1),
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="TensorRT: for later versions of its major version too; slower.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="TensorRT: for every GPU since Ampere; slower.")
    ] = False,
    refittable: Annotated[
        bool,
        typer.Option("--refittable", help="TensorRT 10 and newer: new weights of the same graph go into the old engine."),
    ] = False,
    strip_plan: Annotated[
        bool,
        typer.Option("--strip-plan", help="TensorRT 10 and newer: no weights in the engine, it takes those of its ONNX file."),
    ] = False,
    dla: Annotated[
        int | None, typer.Option(help="TensorRT 8 or 10 on a Jetson: the DLA core that takes what can run there.", min=0)
    ] = None,
    tune_: Annotated[
        bool,
        typer.Option("--tune", help="Build sets of exact rewrites in the precisions that are given, and keep the fastest."),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="--tune where engines cannot run: the GPU to estimate them for, such as orin-nano.")
    ] = None,
    export: Annotated[
        str | None, typer.Option(help="Also write what another program runs the model by: triton or deepstream.")
    ] = None,
    export_to: Annotated[
        Path | None, typer.Option(help="With --export: the folder; default: in the workspace, named after the program.")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Build and time it even if an equal engine was built before.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--to", help="Engine file; default: in the workspace, named after precision and target.")
    ] = None,
    classes: ClassesOption = None,
    ignore_index: IgnoreIndexOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    output: OutputOption = None,
) -> None:
    """Build an engine, with a manifest that says what it was made from and for."""
    from dlv3deploy.commands.build_refusals import (
        require_float,
        require_onnx_name,
        require_options_of,
        require_ours,
        with_head,
    )
    from dlv3deploy.commands.build_report import report_speed, report_tuning
    from dlv3deploy.commands.export_pipeline import PIPELINES, check_pipeline, export_pipeline
    from dlv3deploy.commands.models import check_export_is_current, sized
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.foreign import spec_of
    from dlv3deploy.core.graph import load_onnx, ports
    from dlv3deploy.core.progress import say
    from dlv3deploy.engines.build import build
    from dlv3deploy.engines.dialect import TENSORRT_RTX
    from dlv3deploy.engines.onnxruntime_engine import NAME
    from dlv3deploy.engines.providers import BY_NAME
    from dlv3deploy.engines.request import (
        BACKENDS,
        EngineRequest,
        check,
        default_backend,
        default_precision,
        default_rewrites,
        target_label,
    )
    from dlv3deploy.engines.rewrites.certified import named
    from dlv3deploy.engines.tensorrt_options import TensorRTOptions, capability_named

    precisions: dict[Precision, bool] = {"int8": int8, "bf16": bf16, "fp16": fp16, "fp32": fp32}
    wanted = [name for name, chosen in precisions.items() if chosen]
    for option, value in (("--images", images), ("--calibration-images", calibration_images)):
        if value is not None and not int8:
            raise UserError(f"{option} without --int8", "INT8 alone is calibrated on images", "add --int8, or leave it out")
    if tune_ and rewrites is not None:
        raise UserError("--rewrites with --tune", "tuning tries them all", "leave one of them out")
    for option, value in (("--refittable", refittable), ("--strip-plan", strip_plan)):
        if tune_ and value:
            raise UserError(f"--tune with {option}", "tuning builds every candidate anew", "leave one of them out")
    if device is not None and not tune_:
        raise UserError("--device without --tune", "is what tuning estimates engines for", "add --tune, or leave it out")
    if tune_ and to is not None and len(wanted) > 1:
        raise UserError("--to with several precisions", "the engine is named after the one that is kept", "leave --to out")
    if len(wanted) > 1 and not tune_:
        raise UserError(" and ".join(f"--{name}" for name in wanted), "exclude each other", "give one precision")
    if export_to is not None and export is None:
        raise UserError("--export-to without --export", "is where an export goes", "add --export triton or deepstream")
    pipeline = parse_choice(export, "--export", PIPELINES) if export else None
    chosen = parse_choice(backend, "--backend", BACKENDS) if backend else default_backend()
    if device is not None and backend is None and chosen == NAME:
        chosen = TENSORRT_RTX.name  # which compiles for GPUs that are not here
    place, source = Workspace(workspace), model or Workspace(workspace).onnx
    if to is not None and to.suffix != ".engine":
        raise UserError(str(to), "is no engine's name", "end it in .engine")
    require_onnx_name(source, place)
    if to is not None:
        require_ours(to)
    graph = load_onnx(source)
    require_float(graph, source)
    if model is None:
        check_export_is_current(place)
    precisions_ = wanted or [default_precision(chosen)]
    description = describe(classes, ignore_index, mean, std, output)
    known = _described_earlier(graph, source, place) if int8 else None
    if known is not None:
        say(f"what the options do not say of {source} is as in {place.int8_onnx(source)}")
        description = description.completed_by(known)
        size = size or f"{known.input.height}x{known.input.width}"
        mean, std = mean or numbers(known.input.mean), std or numbers(known.input.std)
    spec = sized(spec_of(graph, description, str(source)), size)
    if batch > 1 and ports(graph, str(source))[0].shape[0] is not None:
        raise UserError(f"--batch {batch}", f"{source} takes one image", "export it with --dynamic-batch")
    given = {
        "--backend": chosen,
        "--images": images,
        "--calibration-images": calibration_images,
        "--size": size,
        "--batch": batch if batch > 1 else None,
        "--rewrites": rewrites,
        "--workspace-mb": workspace_mb,
        "--version-compatible": version_compatible,
        "--hardware-compatible": hardware_compatible,
        "--refittable": refittable,
        "--strip-plan": strip_plan,
        "--dla": dla,
        "--provider": provider,
        "--tune": tune_,
        "--device": device,
        "--to": to,
        "--classes": classes,
        "--ignore-index": ignore_index,
        "--mean": mean,
        "--std": std,
        "--output": output,
    }
    targets = tuple(dict.fromkeys(map(capability_named, target or ())))
    command = _command(place, model, precisions_, given, targets)
    applied = default_rewrites(chosen, spec.output) if rewrites is None else named(rewrites)
    if pipeline is not None:
        applied = with_head(applied, rewrites, pipeline)
    options = TensorRTOptions(
        *(targets, workspace_mb, version_compatible, hardware_compatible, dla),
        refittable=refittable,
        stripped=strip_plan,
    )
    require_options_of(chosen, {**given, "--target": target})
    running = parse_choice(provider, "--provider", BY_NAME) if provider else None
    if tune_:
        from dlv3deploy.engines.plans.devices import device_named
        from dlv3deploy.engines.tune import tune, tuning_device

        estimated_for = device_named(device) if device else None
    requests: dict[Path, EngineRequest] = {}
    for precision in sorted(precisions_, key=FALLING_BACK_TO.index):
        request = EngineRequest(
            *(source, source, spec, precision, chosen, options, running),
            command=command,
            rewrites=applied,
            asked=rewrites is not None,
            batch=batch,
        )
        check(request)
        if tune_:
            tuning_device(request, estimated_for)
        engine = to or place.engine(source, precision, target_label(chosen, options, running, batch))
        if pipeline is not None:
            check_pipeline(pipeline, export_to or workspace / pipeline, place.stem_for(source), [request])
        is_int8 = precision == "int8"
        requests[engine] = _calibrated(request, place, engine, images, calibration_images) if is_int8 else request
    cache = _cache(no_cache)
    if tune_:
        engine, manifest = tune(requests, cache, estimated_for)
        report_tuning(manifest, estimated_for)
    else:
        ((engine, request),) = requests.items()
        manifest = build(request, engine, cache)
    made = f"{manifest.builder.name} {manifest.builder.version}, {manifest.target.device}"
    say(f"wrote {engine} ({engine.stat().st_size / 1e6:.1f} MB, {made})")
    report_speed(manifest)
    if pipeline is not None:
        export_pipeline(pipeline, export_to or workspace / pipeline, place.stem_for(source), requests[engine], engine, manifest)


def _cache(anew: bool) -> EngineCache | None:
    """What keeps engines; None where all is to be built anew and that cannot be kept."""
    from dlv3deploy.core.cache_folder import cache_folder
    from dlv3deploy.engines.cache import FOLDER, EngineCache

    cache = EngineCache(cache_folder() / FOLDER, anew)
    return None if anew and not cache.is_writable else cache


def _described_earlier(graph: ModelProto, source: Path, place: Workspace) -> ModelSpec | None:
    from dlv3deploy.calibration.earlier import described_earlier

    return described_earlier(graph, source, place.int8_onnx(source))


def _command(
    place: Workspace, model: Path | None, precisions: Sequence[str], given: Mapping[str, object], targets: Sequence[str]
) -> str:
    """The command line that makes this engine again."""
    words: list[object] = [*([model] if model else []), *(f"--{precision}" for precision in precisions)]
    for option, value in (*given.items(), *(("--target", text) for text in targets)):
        words += [] if value is None or value is False else [option] if value is True else [option, value]
    return place.command("build-engine", *words)


def _calibrated(
    request: EngineRequest, place: Workspace, engine: Path, folder: Path | None, count: int | None
) -> EngineRequest:
    """The request with the Q/DQ model in place of the float one: what `calibrate` left here, unless images are given."""
    from dlv3deploy.calibration.calibrate import Request, calibrate
    from dlv3deploy.calibration.earlier import made_earlier
    from dlv3deploy.commands.calibrate import report
    from dlv3deploy.commands.calibration_images import CALIBRATION_IMAGES, calibration_pictures
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.progress import say
    from dlv3deploy.engines.manifest import Calibration, relative_source

    source, spec, before = request.source, request.spec, None
    int8_onnx, table_path = place.int8_onnx(source), place.calibration(source)
    is_asked_for = folder is not None or count is not None
    with suppress(UserError) if is_asked_for else nullcontext():  # one of another size is replaced then
        before = made_earlier(source, spec, int8_onnx, table_path)
    table = None if is_asked_for else before
    if table is None:
        pictures = calibration_pictures(spec, source, folder, count or CALIBRATION_IMAGES)
        asked = Request(source, spec, pictures)
        table = calibrate(asked, int8_onnx, table_path, say)
        if before is not None and before.key != table.key:
            say(f"{int8_onnx} takes the place of the one by {before.key.images} images, {before.chosen}")
        report(table, int8_onnx)
    else:
        say(f"using {int8_onnx}: {table.key.images} images, {table.chosen}")
    key, beside = table.key, relative_source(table_path, engine)
    facts = Calibration(table.chosen, key.images, key.images_sha256, beside, table.model_sha256, key.resolution)
    return replace(request, onnx=int8_onnx, calibration=facts)
