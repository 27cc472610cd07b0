"""`dlv3deploy inspect --plan`: what TensorRT-RTX compiles a graph into, on a named device, and beside another graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto

    from dlv3deploy.engines.plans.devices import Device
    from dlv3deploy.engines.plans.difference import Change
    from dlv3deploy.engines.plans.plan import Kernel, Plan, Tensor
    from dlv3deploy.measure.plan_picture import Bar

MOST_KERNELS = 12  # shown without --all


@dataclass(frozen=True)
class PlanRequest:
    """How graphs are compiled and what is shown of them, as the options say it."""

    size: str | None
    device: str | None
    precision: str | None
    picture: Path | None
    rewritten: bool = False


def show_plans(paths: Sequence[Path], request: PlanRequest, every: bool, json_output: bool) -> None:
    """Print the plan of one artefact, or what two have in common and where they differ; draw them where that is asked for.

    Raises UserError when TensorRT-RTX is missing or refuses a graph, and where an engine cannot be looked into here.
    """
    import json

    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.progress import say
    from dlv3deploy.engines.plans.devices import device_named
    from dlv3deploy.engines.plans.difference import changes
    from dlv3deploy.measure.plan_picture import FORMATS

    device, picture = device_named(request.device) if request.device else None, request.picture
    if picture is not None and picture.suffix not in FORMATS:
        raise UserError(f"--picture {picture}", "is no picture that can be drawn", f"end the name in {', '.join(FORMATS)}")
    plans = [_plan(path, request, device) for path in paths]
    facts = [{"file": str(path), **_plan_facts(plan, device)} for path, plan in zip(paths, plans, strict=True)]
    differing = changes(plans[0].plan, plans[1].plan) if len(plans) > 1 else None
    changed = None if differing is None else [_change(change) for change in differing]
    titles = list(map(str, paths))
    if picture is not None:
        draw(
            picture,
            [(_title(_short(path), entry), p.plan) for path, entry, p in zip(paths, facts, plans, strict=True)],
            differing,
        )
        say(f"drawn to {picture}")
    if json_output:
        print(json.dumps(facts[0] if changed is None else {"plans": facts, "changes": changed}, ensure_ascii=False))
    elif changed is None:
        print_plan(titles[0], facts[0], every)
    else:
        print_comparison(titles, facts, changed, every)


@dataclass(frozen=True)
class _Compiled:
    plan: Plan
    builder: str
    capability: str | None


def _plan(path: Path, request: PlanRequest, device: Device | None) -> _Compiled:
    """Of an ONNX file what TensorRT-RTX compiles, of an engine what is in it."""
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.graph import fix_input, load_onnx, simplified
    from dlv3deploy.core.spec import OutputSpec
    from dlv3deploy.engines.dialect import TENSORRT_RTX, nearest_capability
    from dlv3deploy.engines.open import checked_manifest, plan_of
    from dlv3deploy.engines.precision import NARROWED, is_quantized
    from dlv3deploy.engines.rewrites.certified import BY_DEFAULT, certified
    from dlv3deploy.engines.tensorrt_backend import OF_A_PLAN, TensorRTBackend
    from dlv3deploy.engines.tensorrt_options import TensorRTOptions

    if path.suffix == ".engine":
        manifest = checked_manifest(path)
        return _Compiled(plan_of(path, manifest), f"{manifest.builder.name} {manifest.builder.version}", None)
    if path.suffix != ".onnx":
        raise UserError(str(path), "has no plan", "give an .onnx or .engine file")
    model = load_onnx(path)
    graph = fix_input(model, (1, 3, *_size(model, path, request.size)))
    if request.rewritten:
        graph = certified(graph, BY_DEFAULT, OutputSpec("logits"), str(path)).model
    narrowed = None if request.precision is None or is_quantized(graph) else NARROWED[request.precision]
    typed = graph if narrowed is None else narrowed(simplified(graph))
    capability = nearest_capability(TENSORRT_RTX, device.capability if device else OF_A_PLAN)
    backend = TensorRTBackend(TENSORRT_RTX, TensorRTOptions((capability,)))
    plan, builder = backend.plan(typed.SerializeToString(), str(path)), backend.builder()
    return _Compiled(plan, f"{builder.name} {builder.version}", capability)


def _size(model: ModelProto, path: Path, size: str | None) -> tuple[int, int]:
    """Height and width that a graph is compiled for: its own, or those asked for where it leaves them open."""
    from dlv3deploy.commands.options import SIZE, parse_size
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.graph import embedded_spec, ports

    *_, height, width = ports(model, str(path))[0].shape
    if height and width:
        if size and parse_size(size) != (height, width):
            raise UserError(f"--size {size}", f"{path} is fixed at {height}×{width}", "leave it out")
        return height, width
    if size:
        return parse_size(size)
    if spec := embedded_spec(model, str(path)):
        return spec.input.height, spec.input.width
    raise UserError(str(path), "leaves its input's size open", f"add --size {SIZE}")


def _plan_facts(compiled: _Compiled, device: Device | None) -> dict[str, Any]:
    from dlv3deploy.engines.plans.roofline import estimate_kernel, estimate_ms

    plan, kernels = compiled.plan, [_facts(kernel) for kernel in compiled.plan.kernels]
    facts: dict[str, Any] = {"builder": compiled.builder, "compute_capability": compiled.capability, **plan.figures()}
    if device is not None:
        for entry, kernel in zip(kernels, plan.kernels, strict=True):
            estimate = estimate_kernel(kernel, device)
            entry |= {"roofline_ms": estimate.ms, "bound": estimate.bound}
        facts |= {"device": device.title, "roofline_ms": estimate_ms(plan, device)}
    return {**facts, "kernels": kernels}


def _short(path: Path) -> str:
    """The file and its folder: a picture has no room for more."""
    return str(Path(*path.parts[-2:]))


def _title(path: str, facts: dict[str, Any]) -> str:
    kernels = f"{facts['convolutions']} convolution kernels and {facts['others']} others"
    return f"{path}: {kernels}, {facts['bytes_moved'] / 1e6:.1f} MB moved, {facts['macs'] / 1e9:.2f} G multiply-accumulates"


def _facts(kernel: Kernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "kind": kernel.kind,
        "nodes": list(kernel.nodes),
        "reads": [_tensor(tensor) for tensor in kernel.inputs],
        "writes": [_tensor(tensor) for tensor in kernel.outputs],
        "is_convolution": kernel.is_convolution,
        "bytes_moved": kernel.bytes_moved,
        "weight_bytes": kernel.bytes_read_once,
        "macs": kernel.macs,
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "shape": list(tensor.shape), "type": tensor.type}


def _change(change: Change) -> dict[str, Any]:
    return {"node": change.node, "before": _side(change.before), "after": _side(change.after)}


def _side(kernels: Sequence[Kernel]) -> dict[str, Any]:
    return {
        "kernels": len(kernels),
        "writes": [_tensor(tensor) for kernel in kernels for tensor in kernel.outputs],
        "bytes_moved": sum(kernel.bytes_moved for kernel in kernels),
        "macs": sum(kernel.macs for kernel in kernels),
    }


def draw(path: Path, plans: Sequence[tuple[str, Plan]], differing: Sequence[Change] | None) -> None:
    """The picture of one plan or two; of two the kernels at the places that differ are marked."""
    from dlv3deploy.measure.plan_picture import draw_plans

    marked = {id(kernel) for change in differing or () for kernel in (*change.before, *change.after)}
    draw_plans(path, [(title, [_bar(kernel, id(kernel) in marked) for kernel in plan.kernels]) for title, plan in plans])


def _bar(kernel: Kernel, is_changed: bool) -> Bar:
    from dlv3deploy.measure.plan_picture import Bar

    largest = max((*kernel.inputs, *kernel.outputs), key=lambda tensor: tensor.bytes)
    return Bar(kernel.bytes_moved, largest.type, kernel.is_convolution, is_changed)


def print_plan(title: str, facts: dict[str, Any], every: bool) -> None:
    """A line for each kernel, or for those that take most: by the roofline where a device is named, else by bytes."""
    from dlv3deploy.commands.tables import print_records

    timed = "roofline_ms" in facts
    weight = (lambda kernel: kernel["roofline_ms"]) if timed else (lambda kernel: kernel["bytes_moved"])
    kernels: list[dict[str, Any]] = facts["kernels"]
    kept = kernels if every else sorted(kernels, key=weight, reverse=True)[:MOST_KERNELS]
    header = ("kernel", "reads", "writes", "MB moved", "MACs", *(("roofline", "by") if timed else ()))
    records = [
        (
            *(_named(kernel), _shape(kernel["reads"]), _shape(kernel["writes"])),
            *(f"{kernel['bytes_moved'] / 1e6:.2f}", f"{kernel['macs'] / 1e6:.1f} M" if kernel["macs"] else "–"),
            *((f"{1e3 * kernel['roofline_ms']:.1f} µs", kernel["bound"]) if timed else ()),
        )
        for kernel in kept
    ]
    left = f"the {len(kept)} that {'take' if timed else 'move'} most of {len(kernels)}; --all lists every one"
    target = f" for compute capability {facts['compute_capability']}" if facts["compute_capability"] else ""
    notes = [
        f"compiled by {facts['builder']}{target}",
        "MB moved: activations read and written. MACs: multiply-accumulates, with padding and the channels that are added",
    ]
    if timed:
        notes.append(
            f"roofline: ESTIMATE for {facts['device']} by its published peaks; {facts['roofline_ms']:.3f} ms for "
            "all kernels. No launches, no caches; nothing was run"
        )
    print(_title(title, facts))
    print_records("kernels" if len(kept) == len(kernels) else f"kernels, {left}", header, records, notes)


def _named(kernel: dict[str, Any]) -> str:
    """The nodes of a kernel, the first of them in full."""
    nodes: list[str] = kernel["nodes"]
    further = f" + {len(nodes) - 1}" if len(nodes) > 1 else ""
    return f"{nodes[0]}{further}" if nodes else f"({kernel['name']})"


def _shape(tensors: list[dict[str, Any]]) -> str:
    shown = [f"{'×'.join(map(str, tensor['shape'][1:])) or '1'} {tensor['type']}" for tensor in tensors]
    return ", ".join(shown[:2]) + (f" and {len(shown) - 2} more" if len(shown) > 2 else "")


def print_comparison(
    titles: Sequence[str], plans: Sequence[dict[str, Any]], changed: list[dict[str, Any]], every: bool
) -> None:
    """Two plans in a table, and the nodes whose kernels are not alike in both."""
    from dlv3deploy.commands.tables import print_records

    timed = "roofline_ms" in plans[0]
    rows = [
        ("convolution kernels", *(str(plan["convolutions"]) for plan in plans)),
        ("other kernels", *(str(plan["others"]) for plan in plans)),
        ("MB moved", *(f"{plan['bytes_moved'] / 1e6:.1f}" for plan in plans)),
        ("MACs", *(f"{plan['macs'] / 1e6:.1f} M" for plan in plans)),
        *([("roofline (estimate)", *(f"{plan['roofline_ms']:.3f} ms" for plan in plans))] if timed else []),
    ]
    makers = " and ".join(dict.fromkeys(plan["builder"] for plan in plans))
    notes = [f"compiled by {makers}; A: {titles[0]}, B: {titles[1]}"]
    if timed:
        notes.append(f"roofline: ESTIMATE for {plans[0]['device']} by its published peaks; nothing was run")
    print_records("plans", ("", "A", "B"), rows, notes)
    if not changed:
        print("both compile into the same kernels")
        return
    by_gain = sorted(
        changed, key=lambda entry: abs(entry["after"]["bytes_moved"] - entry["before"]["bytes_moved"]), reverse=True
    )
    kept = changed if every else by_gain[:MOST_KERNELS]
    records = [
        (
            entry["node"],
            *(str(entry[side]["kernels"]) for side in ("before", "after")),
            *(f"{entry[side]['bytes_moved'] / 1e6:.2f}" for side in ("before", "after")),
            *(f"{entry[side]['macs'] / 1e6:.1f} M" if entry[side]["macs"] else "–" for side in ("before", "after")),
        )
        for entry in kept
    ]
    left = "" if len(kept) == len(changed) else f", the {len(kept)} that change most of {len(changed)}; --all lists every one"
    header = ("node", "kernels A", "B", "MB moved A", "B", "MACs A", "B")
    print_records(f"what changed{left}", header, records)
