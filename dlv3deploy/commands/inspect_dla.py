"""`dlv3deploy inspect --dla`: which layers a deep learning accelerator will not run, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto


def dla_facts(fixed: ModelProto) -> dict[str, Any]:
    """The prediction for a graph of fixed size, as JSON."""
    from dataclasses import asdict

    from dlv3deploy.core.graph import simplified
    from dlv3deploy.engines.dla import LOADABLES, predict

    found = predict(simplified(fixed))
    return {
        "layers": len(found.placements),
        "elsewhere": [asdict(placement) for placement in found.elsewhere],
        "macs_on_dla": found.macs_on_dla,
        "pieces": found.pieces,
        "pieces_held": LOADABLES,
    }


def print_dla(facts: dict[str, Any]) -> None:
    """What stays on the GPU, a line for each layer."""
    from dlv3deploy.commands.tables import print_records

    elsewhere = facts["elsewhere"]
    pieces = f"{facts['pieces']} piece{'s' * (facts['pieces'] != 1)}"
    notes = [
        f"{facts['layers'] - len(elsewhere)} of {facts['layers']} layers and {facts['macs_on_dla']:.1%} of the "
        f"multiply-accumulates can run on a DLA, in {pieces} or more; a core holds {facts['pieces_held']}",
        "PREDICTED from published restrictions (TensorRT 8.6 to 10.7, Xavier and Orin); nothing was run",
    ]
    if not elsewhere:
        print("\n".join(("no layer stays on the GPU", *notes)))
        return
    records = [(placement["node"], placement["operator"], placement["reason"]) for placement in elsewhere]
    print_records("on the GPU, not on a DLA", ("layer", "operator", "why"), records, notes)
