"""Dead taps: rows and columns of a kernel that read padding at every output position are taken off.

At atrous rate r a tap beyond the middle one reads r·i positions aside. On a map that is no larger, all it ever reads is
padding: 0 times its weight. So a 3×3 kernel becomes 1×3, 3×1 or, where neither side is larger than r, 1×1 (paper, section 3.3).
What is left reads what it read, in the same order; nothing but additions of 0 is gone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dlv3deploy.core.dilation import Window
from dlv3deploy.engines.rewrites.change import Change
from dlv3deploy.engines.rewrites.constants import Constant
from dlv3deploy.engines.rewrites.splice import Splice
from dlv3deploy.engines.rewrites.windows import windows_of

if TYPE_CHECKING:
    import onnx_ir as ir

NAME = "dead taps"
AXES = (2, 3)  # of a weight: rows and columns of the kernel


def drop_dead_taps(graph: ir.Graph) -> list[Change]:
    """Change every convolution of `graph`, with shapes inferred, that has dead taps. Biases, pairs and names stay."""
    return [change for node in list(graph) if (change := _without_dead_taps(node)) is not None]


def _without_dead_taps(node: ir.Node) -> Change | None:
    windows, constant = windows_of(node), Constant.behind(node.inputs[1]) if len(node.inputs) > 1 else None
    if windows is None or constant is None:
        return None
    kept = [live_taps(window) for window in windows]
    cut = dict(zip(AXES, kept, strict=True))
    small = [_cut(window, taps) for window, taps in zip(windows, kept, strict=True)]
    if tuple(small) == windows or not constant.can_be_cut(cut):
        return None
    import onnx_ir as ir

    splice = Splice(node)
    node.replace_input_with(1, constant.cut(cut, splice))
    rows, columns = small
    settings = {
        "kernel_shape": [rows.kernel, columns.kernel],
        "dilations": [rows.rate, columns.rate],
        "pads": [rows.before, columns.before, rows.after, columns.after],
    }
    for key, value in settings.items():
        node.attributes[key] = ir.AttrInt64s(key, value)
    outer = math.prod(constant.numpy().shape[:2]) * rows.outputs * columns.outputs
    before, after = (outer * one.kernel * other.kernel for one, other in (windows, small))
    return Change(splice.name, NAME, f"{rows.kernel}×{columns.kernel}", before, after)


def live_taps(window: Window) -> range:
    """From the first to the last tap that reads the map anywhere, and no fewer than its padding allows: what is taken off at a
    side takes a rate of padding with it, of which none may be left over. All of them where none reads the map."""
    valid = [tap for tap in range(window.kernel) if window.valid_positions(tap)]
    if not valid:
        return range(window.kernel)
    first = min(valid[0], window.before // window.rate)
    last = max(valid[-1], window.kernel - 1 - window.after // window.rate)
    return range(first, last + 1)


def _cut(window: Window, taps: range) -> Window:
    """The window of these taps alone; without neighbours a tap has no rate."""
    before = window.before - taps.start * window.rate
    after = window.after - (window.kernel - taps.stop) * window.rate
    rate = window.rate if len(taps) > 1 else 1
    return window._replace(kernel=len(taps), rate=rate if window.kernel > 1 else window.rate, before=before, after=after)
