"""What changed between two plans, matched by the ONNX nodes that their kernels stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dlv3deploy.engines.plans.plan import Kernel, Plan

BEGINNING = "(input)"  # the place of kernels before any that stands for a node


@dataclass(frozen=True)
class Change:
    """What stands for a node in the first plan, and what in the second; one of the two may be empty."""

    node: str
    before: tuple[Kernel, ...]
    after: tuple[Kernel, ...]


def places(plan: Plan) -> Mapping[str, tuple[Kernel, ...]]:
    """The kernels of each node, in the order in which they run. A kernel belongs to the first node that it names: a convolution
    to itself, what is done to its output to the convolution too. One that names none belongs with the kernel before it."""
    found: dict[str, list[Kernel]] = {}
    place = BEGINNING
    for kernel in plan.kernels:
        place = kernel.nodes[0] if kernel.nodes else place
        found.setdefault(place, []).append(kernel)
    return {node: tuple(kernels) for node, kernels in found.items()}


def changes(first: Plan, second: Plan) -> list[Change]:
    """Nodes whose kernels are not alike in both, in the order of the first plan, those of the second alone at the end.

    Alike are kernels of one kind with tensors of one shape and type; the names of kernels and tensors do not count, a compiler
    chooses them.
    """
    before, after = places(first), places(second)
    both = [Change(node, before.get(node, ()), after.get(node, ())) for node in dict.fromkeys((*before, *after))]
    return [change for change in both if tuple(map(_form, change.before)) != tuple(map(_form, change.after))]


def _form(kernel: Kernel) -> tuple[object, ...]:
    tensors = (tuple((t.shape, t.type) for t in group) for group in (kernel.inputs, kernel.constants, kernel.outputs))
    return kernel.kind, *tensors
