"""Whether a torch graph computes what its file says, checked node by node against ONNX Runtime on real images.

From end to end two runtimes need not agree: convolutions differ in the last digit, so that values at the half-way points of a
grid are rounded up by one and down by the other, and a badly calibrated network makes much of such a step. So every node is
given the very inputs that ONNX Runtime had; its result must be the same, to rounding, and of a Q/DQ pair the same integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.train.quantized.node import Node
from dlv3deploy.train.quantized.pairs import DEQUANTIZE, QUANTIZE
from dlv3deploy.train.quantized.quantized_graph import QuantizedGraph

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE = 1e-5  # of a tensor's largest value: float32 summed in another order stays well below it
INTEGER_TOLERANCE = 1e-5  # share of values at a half-way point, where a division that is one bit off decides
BYTES_AT_ONCE = 1 << 28  # of tensors that are held at a time, beside one node's own
INSTALL = "install dlv3deploy[onnxruntime]"


@dataclass(frozen=True)
class NodeParity:
    """The largest difference of any node as a share of its result's largest value, and the nodes compared."""

    difference: float
    nodes: int
    runtime: str


def check_nodes(graph: QuantizedGraph, model: ModelProto, batches: Sequence[Batch]) -> NodeParity:
    """Compare `graph`, on the CPU, with `model` as ONNX Runtime runs it without optimisation. Raises CheckFailed."""
    before = {node.output: node for node in graph.nodes if node.kind == QUANTIZE}
    compared = [node for node in graph.nodes if node.kind != QUANTIZE]
    worst, runtime = 0.0, _runtime()
    with torch.inference_mode():
        known = graph.known()
        for nodes in _groups(compared, _sizes(graph, batches[0])):
            sources = [before.get(node.inputs[0], node) if node.inputs else node for node in nodes]
            watched = {name for node in sources for name in node.inputs if name and name not in known} | {
                n.output for n in nodes
            }
            for seen in _seen(runtime, model, graph.input, watched - {graph.input}, batches):
                values = known | {name: torch.from_numpy(values) for name, values in seen.items()}
                for node, source in zip(nodes, sources, strict=True):
                    worst = max(worst, _compare(node, graph.result(source, values).numpy(), seen[node.output]))
    return NodeParity(worst, len(compared), f"ONNX Runtime {runtime.__version__}")


def _sizes(graph: QuantizedGraph, batch: Batch) -> dict[str, int]:
    """Bytes of every node's result."""
    sizes: dict[str, int] = {}
    values = graph.known() | {graph.input: torch.from_numpy(batch)}
    for node, result in graph.results(values):
        sizes[node.output] = result.nbytes
    return sizes


def _groups(nodes: Sequence[Node], sizes: Mapping[str, int]) -> Iterator[list[Node]]:
    """The nodes in order, in groups whose inputs and results are held together."""
    group: list[Node] = []
    held = 0
    for node in nodes:
        needed = sum(sizes.get(name, 0) for name in (*node.inputs, node.output))
        if group and held + needed > BYTES_AT_ONCE:
            yield group
            group, held = [], 0
        group.append(node)
        held += needed
    if group:
        yield group


def _compare(node: Node, found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The difference as a share of the largest value; of a pair 0. Raises CheckFailed when it is too large."""
    if found.shape != wanted.shape:
        raise CheckFailed(f"{node.kind} {node.name} gives {found.shape} in torch, {wanted.shape} in ONNX Runtime; report this")
    if node.kind == DEQUANTIZE:
        others = float((found != wanted).mean())
        if others > INTEGER_TOLERANCE:
            raise CheckFailed(f"{node.kind} {node.name}: {others:.1%} of its values differ from ONNX Runtime's; report this")
        return 0.0
    difference = float(np.abs(found - wanted).max(initial=0) / max(np.abs(wanted).max(initial=0), 1e-12))
    if not difference <= TOLERANCE:
        raise CheckFailed(
            f"{node.kind} {node.name} differs from ONNX Runtime by {difference:.1e} of its largest value, {TOLERANCE:.0e} is "
            "allowed; report this"
        )
    return difference


def _seen(
    runtime: Any, model: ModelProto, given: str, names: set[str], batches: Sequence[Batch]
) -> Iterator[dict[str, NDArray[Any]]]:
    """The tensors of these names, and the input, for each batch."""
    import onnx

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    present = {output.name for output in shown.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names - present))
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = sorted(names)
    for batch in batches:
        yield {**dict(zip(wanted, session.run(wanted, {given: batch}), strict=True)), given: batch}


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "fine-tuning an INT8 model", "compares it with ONNX Runtime, which is not installed", INSTALL
        ) from error
    return onnxruntime
