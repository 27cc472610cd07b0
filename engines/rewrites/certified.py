"""Rewrites as engines get them: applied by name, and proved on the very graph that they changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.graph import ports, simplified
from dlv3deploy.engines.rewrites.certificate import Certificate, certify, noise
from dlv3deploy.engines.rewrites.change import Change
from dlv3deploy.engines.rewrites.rewrite import IN_THEIR_ORDER, Rewrite, rewritten

if TYPE_CHECKING:
    from onnx import ModelProto

BY_DEFAULT = ("dead-taps", "image-pooling")  # fewer products and fewer bytes in every plan of benchmarks/results/rewrites.md
LOSES_GRIDS = "image-pooling"  # what it takes out of an INT8 graph was rounded before, and is not any more
ALIKE = 0.99  # of positions, by an INT8 graph that has lost grids


def named(text: str) -> tuple[str, ...]:
    """The rewrites that a command line names: `none`, or names joined by commas. Raises UserError."""
    if text == "none":
        return ()
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in IN_THEIR_ORDER]:
        known = ", ".join(IN_THEIR_ORDER)
        raise UserError(f"--rewrites {text}", f"{unknown[0] or 'nothing'} is unknown", f"use none, or some of {known}")
    return tuple(name for name in IN_THEIR_ORDER if name in names)


def certified(model: ModelProto, names: Sequence[str], where: str) -> tuple[ModelProto, list[Change]]:
    """A graph of fixed size after the rewrites `names`, and what they changed.

    Raises CheckFailed when outputs differ by more than float32's order of sums, or where an INT8 graph's pooled branch is no
    longer rounded by more than a few positions; UserError where ONNX Runtime, which compares them, is missing.
    """
    plain = simplified(model)
    is_quantized = any(node.op_type == "QuantizeLinear" for node in plain.graph.node)
    rounds = {name: IN_THEIR_ORDER[name] for name in names if is_quantized and name == LOSES_GRIDS}
    exact = {name: IN_THEIR_ORDER[name] for name in names if name not in rounds}
    changed, changes, certificate = _compared(plain, list(exact.values()))
    if not certificate.is_exact:
        _refuse(where, names, certificate)
    changed, more, certificate = _compared(changed, list(rounds.values()))
    if certificate.agreement < ALIKE:
        _refuse(where, names, certificate)
    return changed, [*changes, *more]


def _compared(model: ModelProto, rewrites: list[Rewrite]) -> tuple[ModelProto, list[Change], Certificate]:
    changed, changes = rewritten(model, rewrites)
    if not changes:
        return model, [], Certificate(0, 0.0, 1.0)
    batch, channels, height, width = (size or 1 for size in ports(model, "the graph")[0].shape)
    return changed, changes, certify(model, changed, noise((batch, channels, height, width)))


def _refuse(where: str, names: Sequence[str], certificate: Certificate) -> None:
    raise CheckFailed(
        f"{where}: after the rewrites {', '.join(names)} outputs differ by {certificate.difference:.1e} of the largest, and "
        f"{certificate.agreement:.2%} of positions have the same class; build with --rewrites none, and tell us of the model"
    )
