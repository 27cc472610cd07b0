"""Node: one operation of an ONNX graph as the operators see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.graph import attributes

if TYPE_CHECKING:
    from onnx import NodeProto


@dataclass(frozen=True)
class Node:
    """`inputs` names tensors, empty where an optional one is left out; `settings` are the attributes, texts decoded."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    output: str
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, node: NodeProto) -> Node:
        """Raises UserError for an operation with several results: none that is known here has them."""
        outputs = [name for name in node.output if name]
        name = node.name or outputs[0]
        settings = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes(node).items()}
        if len(outputs) != 1:
            raise not_known(node.op_type, name, f"has {len(outputs)} results")
        return cls(node.op_type, name, tuple(node.input), outputs[0], settings)

    def require(self, setting: str, *known: Any) -> None:
        """Raise UserError unless `setting` is left out or has one of these values."""
        if setting in self.settings and self.settings[setting] not in known:
            raise not_known(self.kind, self.name, f"has {setting} {self.settings[setting]}")


def not_known(kind: str, name: str, what: str) -> UserError:
    return UserError(
        f"{kind} {name}",
        f"{what}, which cannot be fine-tuned",
        "leave it as `calibrate` made it, or begin with a float model whose graph does without it",
    )
