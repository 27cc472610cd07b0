"""Open batch: a graph that was written for one image takes any number of them.

INT8 files are calibrated and written for one image, so the sizes in them begin with a 1 where the floating-point graph,
exported with an open batch, takes it from its input. Whether nothing else in a graph is for one image alone is tried
(`engines.rewrites.certificate.require_several_images`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SIZES, SHAPE = 3, 1  # which input of a Resize, and of a Reshape


def with_open_batch(model: ModelProto) -> ModelProto:
    """A copy in which no constant size of a Resize or a Reshape is for one image; `core.graph.fix_input` opens its input."""
    import onnx
    from onnx import numpy_helper

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    reached = {value.name for value in graph.input} - constants.keys()  # of the image
    nodes, added = list["NodeProto"](), dict[str, NDArray[np.int64]]()
    for node in graph.node:
        if not reached & set(node.input):
            nodes.append(node)
            continue
        reached |= set(node.output)
        if node.op_type == "Resize" and (sizes := _of_one_image(node, SIZES, constants)) is not None:
            nodes += _sizes_of_its_input(node, sizes, added)
        elif node.op_type == "Reshape" and (shape := _of_one_image(node, SHAPE, constants)) is not None:
            node.input[SHAPE] = f"{node.output[0]}/shape"
            added[node.input[SHAPE]] = np.array([0, *shape[1:]])  # 0 keeps what is there
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in added.items())
    return result


def _of_one_image(node: NodeProto, place: int, constants: dict[str, NDArray[np.int64]]) -> NDArray[np.int64] | None:
    """The constant sizes in an input of a node, where they begin with the one image; not those of other axes than all, nor of a
    Reshape in which 0 is none."""
    if any(attribute.name == "axes" or (attribute.name == "allowzero" and attribute.i) for attribute in node.attribute):
        return None
    sizes = constants.get(node.input[place]) if len(node.input) > place else None
    return sizes if sizes is not None and sizes.size > 1 and sizes[0] == 1 else None


def _sizes_of_its_input(node: NodeProto, sizes: NDArray[np.int64], added: dict[str, NDArray[np.int64]]) -> list[NodeProto]:
    """Nodes that make the sizes of a Resize from its input's first dimension and the rest of `sizes`, as exporters write it."""
    from onnx import helper

    own = node.output[0]
    shape, images, whole = f"{own}/shape", f"{own}/images", f"{own}/sizes"
    first, second, rest = f"{own}/first", f"{own}/second", f"{own}/rest"
    added |= {first: np.array([0]), second: np.array([1]), rest: sizes[1:]}
    node.input[SIZES] = whole
    return [
        helper.make_node("Shape", [node.input[0]], [shape], shape),
        helper.make_node("Slice", [shape, first, second], [images], images),
        helper.make_node("Concat", [images, rest], [whole], whole, axis=0),
    ]
