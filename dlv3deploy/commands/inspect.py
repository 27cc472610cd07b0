"""`dlv3deploy inspect`: what an artefact is, and the convolutions of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from dlv3deploy.commands.options import (
    SIZE,
    ClassesOption,
    IgnoreIndexOption,
    JsonOption,
    MeanOption,
    OutputOption,
    StdOption,
    WorkspaceOption,
    describe,
    given_options,
    parse_size,
)
from dlv3deploy.core.workspace import DEFAULT_ROOT, Workspace, by_building

MOST_NAMED = 4  # tensors in one line
OF_GRAPHS = ("size", "every", "rewrites", "images", "dla", "classes", "ignore_index", "mean", "std", "output")
OF_PLANS = ("device", "fp16", "bf16", "picture")
NOT_OF_PLANS = ("images", "dla", "classes", "ignore_index", "mean", "std", "output")


def inspect(
    context: typer.Context,
    artefacts: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Checkpoint, ONNX file or engine; default: the workspace's ONNX file. Two with --plan, to be compared.",
            metavar="[ARTEFACT [ARTEFACT]]",
            show_default=False,
        ),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_ROOT,
    size: Annotated[str | None, typer.Option(help=f"Input {SIZE} for the convolutions of an ONNX file.")] = None,
    every: Annotated[bool, typer.Option("--all", help="List every convolution, not the atrous ones alone.")] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Compile an ONNX file with TensorRT-RTX, which needs no GPU, and list the kernels."),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="With --plan: estimate the time on xavier, orin-nano, orin-nx, agx-orin, rtx4090, …")
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="With --plan: compile floating-point graphs in half precision.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="With --plan: compile floating-point graphs in BF16.")] = False,
    picture: Annotated[
        Path | None, typer.Option(help="With --plan: draw what every kernel moves into this .png, .svg or .pdf file.")
    ] = None,
    rewrites: Annotated[
        bool,
        typer.Option(
            "--rewrites",
            help="Say what exact rewrites save at the ONNX file's size, and prove that they are exact. "
            "With --plan: compile the graph after those that TensorRT's engines get by default.",
        ),
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="With --rewrites: prove them on some pictures of this folder too.")
    ] = None,
    dla: Annotated[
        bool, typer.Option("--dla", help="Predict which layers a Jetson's DLA will not run at the ONNX file's size, and why.")
    ] = False,
    json_output: JsonOption = False,
    classes: ClassesOption = None,
    ignore_index: IgnoreIndexOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    output: OutputOption = None,
) -> None:
    """Say what a checkpoint, an ONNX file or an engine is, and what it was made from."""
    import json

    from dlv3deploy.core.errors import CheckFailed, UserError
    from dlv3deploy.core.files import require_file

    place = Workspace(workspace)
    paths = artefacts or [place.onnx if place.onnx.exists() else place.checkpoint]
    given = given_options(context)
    if idle := [option for name, option in given.items() if name in (NOT_OF_PLANS if plan else OF_PLANS)]:
        about, remedy = ("nothing that a plan depends on", "leave it out") if plan else ("about a compiled plan", "add --plan")
        raise UserError(", ".join(idle), f"is {about}", remedy)
    if len(paths) > (2 if plan else 1):
        rule = "one is inspected at a time, and two plans are compared"
        raise UserError(f"{len(paths)} artefacts", rule, "give one, or two and --plan")
    for path in paths:
        first = f"make one with: {place.command('train', 'DATA')}, then {place.command('export')}"
        require_file(path, by_building(path) if path.suffix == ".engine" else first)
        _require_graph(path, given, plan)
    if plan:
        from dlv3deploy.commands.inspect_plan import PlanRequest, show_plans

        if fp16 and bf16:
            raise UserError("--fp16 and --bf16", "exclude each other", "give one precision")
        precision = "fp16" if fp16 else "bf16" if bf16 else None
        show_plans(paths, PlanRequest(size, device, precision, picture, rewrites), every, json_output)
        return
    if images is not None and not rewrites:
        raise UserError("--images", "is what rewrites are proved on", "add --rewrites")
    description = describe(classes, ignore_index, mean, std, output)
    facts = _facts(paths[0], description, size, rewrites, images, dla)
    if json_output:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        _print(paths[0], facts, every)
    if facts.get("rewrites") and not facts["rewrites"]["certificate"]["is_proved"]:
        raise CheckFailed(f"{paths[0]}: outputs change with the rewrites; build with --rewrites none, and tell us")


def _require_graph(path: Path, given: Mapping[str, str], plan: bool) -> None:
    """Raise UserError for options that are about a graph beside a file that holds none to be looked at."""
    from dlv3deploy.core.errors import UserError

    about = tuple(name for name in (*OF_GRAPHS, "fp16", "bf16") if not (plan and name == "every"))
    if plan and path.suffix == ".safetensors":
        raise UserError(f"--plan with {path}", "a checkpoint has no plan", "give an ONNX file or an engine")
    if path.suffix != ".onnx" and (idle := [option for name, option in given.items() if name in about]):
        named = ", ".join(idle)
        raise UserError(f"{named} with {path}", "is about the graph of an ONNX file", f"leave {named} out")


def _facts(path: Path, description: Any, size: str | None, rewrites: bool, images: Path | None, dla: bool) -> dict[str, Any]:
    from dataclasses import asdict

    from dlv3deploy.commands.inspect_dla import dla_facts
    from dlv3deploy.commands.inspect_rewrites import rewrite_facts
    from dlv3deploy.core.checkpoints import checkpoint_facts
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.files import sha256_of
    from dlv3deploy.core.foreign import spec_of
    from dlv3deploy.core.graph import convolutions, fix_input, load_onnx
    from dlv3deploy.engines.fusion import fusion_of

    common = {"file": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
    if path.suffix == ".safetensors":
        checkpoint = checkpoint_facts(path)
        return {"kind": "checkpoint", **common, "numbers": checkpoint.numbers, "spec": checkpoint.spec.to_json()}
    if path.suffix == ".engine":
        from dlv3deploy.engines.fresh import first_change
        from dlv3deploy.engines.manifest import Manifest

        manifest = Manifest.read(path)
        rest = {k: v for k, v in asdict(manifest).items() if k != "spec"}
        return {
            "kind": "engine",
            **common,
            "stale": first_change(path, manifest),
            "spec": manifest.spec.to_json(),
            "manifest": rest,
        }
    if path.suffix != ".onnx":
        raise UserError(str(path), "is no artefact", "give a .safetensors, .onnx or .engine file")
    model = load_onnx(path)
    spec = spec_of(model, description, str(path))
    height, width = parse_size(size) if size else (spec.input.height, spec.input.width)
    if (height, width) != (spec.input.height, spec.input.width) and not spec.input.dynamic_size:
        raise UserError(f"--size {size}", f"the file is fixed at {spec.input.height}×{spec.input.width}", "leave it out")
    fixed = fix_input(model, (1, 3, height, width))
    found, fusion = convolutions(model, height, width), fusion_of(fixed)
    kernels = {kernel.name: asdict(kernel) for kernel in fusion.convolutions}
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    listed = [kernels.get(c.name, {}) | asdict(c) | {"atrous": c.is_atrous} for c in found]
    return {
        "kind": "onnx",
        **common,
        "opset": opset,
        "spec": spec.to_json(),
        "macs": sum(c.macs for c in found),
        "is_quantized": fusion.is_quantized,
        "reading_int8": sum(kernel.reads_int8 for kernel in fusion.convolutions),
        "writing_int8": fusion.writing_int8,
        "further_int8_kernels": fusion.others,
        "rewrites": rewrite_facts(fixed, spec.at_size(height, width), listed, images) if rewrites else None,
        "dla": dla_facts(fixed) if dla else None,
        "convolutions": listed,
    }


def _print(path: Path, facts: dict[str, Any], every: bool) -> None:
    from rich.table import Table

    from dlv3deploy.commands.tables import print_table

    table = Table(show_header=False)
    for name, value in (*_summary(facts["spec"]), *_details(facts)):
        table.add_row(name, value)
    print_table(f"{path}: {facts['kind']}", table)
    if "convolutions" in facts:
        _print_convolutions(facts["convolutions"], every, facts["is_quantized"])
    if facts.get("rewrites"):
        from dlv3deploy.commands.inspect_rewrites import print_rewrites

        print_rewrites(facts["rewrites"], facts["convolutions"])
    if facts.get("dla"):
        from dlv3deploy.commands.inspect_dla import print_dla

        print_dla(facts["dla"])


def _tuples(architecture: dict[str, Any]) -> dict[str, Any]:
    """What JSON has as lists."""
    return {name: tuple(value) for name, value in architecture.items() if isinstance(value, list)}


def _summary(spec: dict[str, Any]) -> Iterable[tuple[str, str]]:
    given, names = spec["input"], spec["classes"]["names"]
    from dlv3deploy.core.spec import Architecture

    architecture, training = spec["architecture"], spec["training"]
    if architecture:
        yield "network", str(Architecture(**{**architecture, **_tuples(architecture)}))
    openness = " (may change)" if given["dynamic_size"] else ""
    yield "input", f"{given['height']}×{given['width']}{openness}, {given['resize']}, {given['colour_order'].upper()}"
    yield "normalised", f"(pixel − {_numbers(given['mean'])}) / {_numbers(given['std'])}"
    shift = f", shifted by {spec['output']['shift']:g} cells" if spec["output"]["shift"] else ""
    yield "output", f"{spec['output']['kind']}, {spec['output']['coordinates']}{shift}"
    yield "classes", f"{len(names)}: {', '.join(names)}; {spec['classes']['ignore_index']} is ignored"
    if training:
        score = f", mIoU {training['miou']:.4f}" if training["miou"] is not None else ""
        yield "trained on", f"{training['data']}, {training['steps']} steps{score}"
    for name, digest in spec["parents"].items():
        yield f"made from {name}", f"sha256 begins with {digest[:12]}"


def _details(facts: dict[str, Any]) -> Iterable[tuple[str, str]]:
    yield "file", f"{facts['bytes'] / 1e6:.2f} MB, sha256 begins with {facts['sha256'][:12]}"
    if "macs" in facts:
        work = f"{facts['macs'] / 1e9:.2f} G multiply-accumulates in {len(facts['convolutions'])} convolutions"
        yield "work", f"{work}, opset {facts['opset']}"
        if facts["is_quantized"]:
            yield "INT8", _int8(facts)
    if "numbers" in facts:
        yield "stores", f"{facts['numbers'] / 1e6:.2f} M numbers"
    if "manifest" in facts:
        if facts["stale"]:
            yield "STALE", f"{facts['stale']}; run and evaluate refuse it"
        yield from _manifest(facts["manifest"])


def _int8(facts: dict[str, Any]) -> str:
    """What the rules that TensorRT documents let become INT8 kernels."""
    reads, writes = facts["reading_int8"], facts["writing_int8"]
    others: list[str] = facts["further_int8_kernels"]
    named = f": {', '.join(others)}" if 0 < len(others) <= MOST_NAMED else ""
    convolutions = f"{reads} convolutions can read it and {writes} of them write it, by TensorRT's rules"
    return f"{convolutions}; {len(others)} further kernels write INT8{named}"


def _manifest(manifest: dict[str, Any]) -> Iterable[tuple[str, str]]:
    from collections import Counter

    builder, target, calibration, timing = (manifest[k] for k in ("builder", "target", "calibration", "timing"))
    layers = Counter(manifest["layer_precision"].values())
    yield "precision", f"{manifest['precision']} ({', '.join(f'{n} convolutions {p}' for p, n in layers.items())})"
    yield "built by", f"{builder['name']} {builder['version']}"
    yield "for", ", ".join(v for v in (target["device"], target["compute_capability"], target["driver"]) if v)
    yield "from", f"{manifest['onnx']}, sha256 begins with {manifest['onnx_sha256'][:12]}"
    together = f" for {manifest['images']} images" if manifest["images"] > 1 else ""
    if together:
        yield "batch", f"1 to {manifest['images']} images"
    if manifest["rewrites"]:
        yield "rewritten", ", ".join(manifest["rewrites"])
    if layout := manifest["builder"]["flags"].get("layout"):
        yield "layout", layout
    if calibration:
        height, width = calibration["resolution"]
        yield "calibrated", f"{calibration['method']}, {calibration['images']} images at {height}×{width}"
    if tuning := manifest["tuning"]:
        how = "estimated" if tuning[0]["is_estimate"] else "timed"
        yield "tuned", f"the fastest of {len(tuning)} candidates, {how}; the first of them {tuning[0]['p50_ms']:.2f} ms"
    if timing:
        yield (
            "latency",
            f"{timing['p50_ms']:.1f} ms median, {timing['p90_ms']:.1f} ms 90th percentile, {timing['runs']} runs{together}",
        )


def _print_convolutions(found: list[dict[str, Any]], every: bool, is_quantized: bool) -> None:
    from dlv3deploy.commands.tables import print_records

    shown = [c for c in found if every or c["atrous"]]
    if not shown:
        print(f"none of its {len(found)} convolutions is atrous (--all lists every one)")
        return
    reasons = list(dict.fromkeys(c["reason"] for c in shown if c.get("reason"))) if is_quantized else []
    records = [
        (
            c["name"],
            "×".join(map(str, c["kernel"])),
            "×".join(map(str, sorted(set(c["atrous_rate"])))),
            "×".join(map(str, c["input_shape"])),
            f"{c['valid_tap_share']:.1%}",
            " / ".join(f"{c['valid_taps'].get(taps, 0):.1%}" for taps in (c["kernel"][0] * c["kernel"][1], 1)),
            f"{c['macs'] / 1e6:.1f} M",
            *([_kernel(c, reasons)] if is_quantized else []),
        )
        for c in shown
    ]
    print_records(
        "convolutions" if every else "atrous convolutions (--all lists every one)",
        ("name", "kernel", "rate", "input", "valid taps", "all / one", "MACs", *(["reads → writes"] if is_quantized else [])),
        records,
        [
            "all / one: the share of positions at which every tap is valid / only one is",
            *(
                ["reads → writes: what one kernel can be, and what runs in it besides, by TensorRT's rules"]
                if is_quantized
                else []
            ),
            *(f"({number}) {reason}" for number, reason in enumerate(reasons, 1)),
        ],
    )


def _kernel(convolution: dict[str, Any], reasons: list[str]) -> str:
    if "fused" not in convolution:
        return "?"
    reads, writes = ("INT8" if convolution[key] else "float" for key in ("reads_int8", "writes_int8"))
    besides = "".join(f" + {kind}" for kind in convolution["fused"])
    why = f" ({reasons.index(convolution['reason']) + 1})" if convolution["reason"] else ""
    return f"{reads}{besides} → {writes}{why}"


def _numbers(values: list[float]) -> str:
    return "[" + ", ".join(f"{v:g}" for v in values) + "]"
