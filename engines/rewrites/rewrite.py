"""All rewrites of a graph at one input size, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dlv3deploy.engines.rewrites.change import Change
from dlv3deploy.engines.rewrites.dead_taps import drop_dead_taps
from dlv3deploy.engines.rewrites.image_pooling import fold_image_pooling

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto

Rewrite = Callable[["ir.Graph"], list[Change]]
ALL: tuple[Rewrite, ...] = (drop_dead_taps, fold_image_pooling)


def rewritten(model: ModelProto, rewrites: Sequence[Rewrite] = ALL) -> tuple[ModelProto, list[Change]]:
    """A copy of `model` with the rewrites applied, and what they changed.

    `model` is of fixed size with shapes inferred (`core.graph.fix_input`), as everything here holds for one size alone. What no
    rewrite knows stays as it is.
    """
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    copy = onnx_ir.from_proto(model)
    changes = [change for rewrite in rewrites for change in rewrite(copy.graph)]
    if changes:
        RemoveUnusedNodesPass()(copy)
    result: ModelProto = onnx_ir.to_proto(copy)
    return result, changes
