"""All rewrites of a graph at one input size, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlv3deploy.core.spec import OutputSpec
from dlv3deploy.engines.rewrites import dead_taps, head, image_pooling, regions, sub_grids
from dlv3deploy.engines.rewrites.change import Change

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto

Rewrite = Callable[["ir.Graph"], list[Change]]
IN_THEIR_ORDER: dict[str, Rewrite] = {
    "dead-taps": dead_taps.drop_dead_taps,
    "image-pooling": image_pooling.fold_image_pooling,
    "regions": regions.split_into_regions,
}
HEAD = "head"  # last, and the one that has the graph return something else
BY_NAME = {**IN_THEIR_ORDER, "sub-grids": sub_grids.regroup_to_sub_grids}  # the work of regions in other words, filled up
NAMES = (*BY_NAME, HEAD)
BY_CHANGE = {
    dead_taps.NAME: "dead-taps",
    image_pooling.NAME: "image-pooling",
    regions.NAME: "regions",
    sub_grids.NAME: "sub-grids",
    head.NAME: HEAD,
}


@dataclass(frozen=True)
class Rewritten:
    """A graph, what it returns now, and what was changed for it."""

    model: ModelProto
    output: OutputSpec
    changes: list[Change]

    @property
    def names(self) -> tuple[str, ...]:
        """What was done, each once."""
        return tuple(dict.fromkeys(change.rewrite for change in self.changes))


def apply(model: ModelProto, names: Sequence[str], output: OutputSpec) -> Rewritten:
    """The rewrites of these names on a graph, as `rewritten` takes it, that returns `output`."""
    changed, changes = rewritten(model, [BY_NAME[name] for name in names if name != HEAD])
    if HEAD in names and (found := head.without_head(changed, output)) is not None:
        changed, output, change = found
        changes = [*changes, change]
    return Rewritten(changed, output, changes)


def rewritten(model: ModelProto, rewrites: Sequence[Rewrite]) -> tuple[ModelProto, list[Change]]:
    """A copy of `model` with the rewrites applied, and what they changed.

    `model` is of fixed size with shapes inferred (`core.graph.fix_input`), as everything here holds for one size alone. What no
    rewrite knows stays as it is.
    """
    import onnx_ir
    from onnx.shape_inference import infer_shapes
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    changes = list[Change]()
    for rewrite in rewrites:
        copy = onnx_ir.from_proto(model)
        if found := rewrite(copy.graph):
            RemoveUnusedNodesPass()(copy)
            model, changes = onnx_ir.to_proto(copy), [*changes, *found]
            del model.graph.value_info[:]  # of tensors that are gone, or have other shapes now
            model = infer_shapes(model, data_prop=True)
    return model, changes
