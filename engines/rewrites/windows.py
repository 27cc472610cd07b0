"""A Conv of an onnx-ir graph as the two windows that go over its map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlv3deploy.core.dilation import Window

if TYPE_CHECKING:
    import onnx_ir as ir


def windows_of(node: ir.Node) -> tuple[Window, Window] | None:
    """Rows and columns of a two-dimensional convolution whose sizes are known and whose padding is written out."""
    shapes = [value.shape for value in node.inputs[:2] if value is not None]
    if node.op_type != "Conv" or len(shapes) < 2 or any(shape is None or len(shape) != 4 for shape in shapes):
        return None
    given, weight = (list(shape or ()) for shape in shapes)
    sizes = [size for size in (*given[2:], *weight) if isinstance(size, int)]
    if len(sizes) < 6 or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    height, width, *_, tall, wide = sizes
    rates, strides = (node.attributes.get_ints(name, (1, 1)) for name in ("dilations", "strides"))
    pads = node.attributes.get_ints("pads", (0, 0, 0, 0))
    return (
        Window(height, tall, rates[0], strides[0], pads[0], pads[2]),
        Window(width, wide, rates[1], strides[1], pads[1], pads[3]),
    )
