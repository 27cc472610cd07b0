"""Rewrites as engines get them: applied by name, and proved on the very graph that they changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from dlv3deploy.core.engine import Batch
from dlv3deploy.core.errors import CheckFailed, UserError
from dlv3deploy.core.graph import ports, simplified
from dlv3deploy.core.progress import say
from dlv3deploy.core.spec import OutputSpec
from dlv3deploy.engines.precision import is_quantized
from dlv3deploy.engines.rewrites.certificate import ALIKE, Certificate, certify, noise
from dlv3deploy.engines.rewrites.rewrite import NAMES, Rewritten, apply

if TYPE_CHECKING:
    from onnx import ModelProto

BY_DEFAULT = ("dead-taps", "image-pooling")  # fewer products and fewer bytes in every plan of benchmarks/results/rewrites.md


def named(text: str) -> tuple[str, ...]:
    """The rewrites that a command line names: `none`, or names joined by commas. Raises UserError."""
    if text == "none":
        return ()
    names, known = [name.strip() for name in text.split(",")], f"use none alone, or some of {', '.join(NAMES)}"
    if "none" in names:
        raise UserError(f"--rewrites {text}", "none goes with no other", known)
    if unknown := [name for name in names if name not in NAMES]:
        rule = f"{unknown[0]} is unknown" if unknown[0] else "there is an empty name"
        raise UserError(f"--rewrites {text!r}" if not text.strip() else f"--rewrites {text}", rule, known)
    return tuple(name for name in NAMES if name in names)


def certified(model: ModelProto, names: Sequence[str], output: OutputSpec, where: str) -> Rewritten:
    """A graph of fixed size that returns `output`, after the rewrites `names`.

    Raises CheckFailed when outputs differ by more than float32's order of sums, of INT8 graphs in more than a few positions;
    UserError where ONNX Runtime, which compares them, is missing or refuses the graph.
    """
    done, difference = _compared(model, names, output)
    if difference:
        after = f"after the rewrites {', '.join(names)} {difference}"
        raise CheckFailed(f"{where}: {after}; build with --rewrites none, and tell us")
    return done


def as_far_as_proved(model: ModelProto, names: Sequence[str], output: OutputSpec) -> Rewritten:
    """Like `certified`, without those that cannot be proved on this graph; each of them is said, with the reason."""
    done, difference = _tried(model, names, output)
    if not difference:
        return done
    kept, done = list[str](), Rewritten(model, output, [])
    for name in names:
        found, difference = _tried(model, [*kept, name], output)
        if difference:
            say(f"the rewrite {name} is left out: {difference}")
        else:
            kept, done = [*kept, name], found
    return done


def _tried(model: ModelProto, names: Sequence[str], output: OutputSpec) -> tuple[Rewritten, str]:
    """Like `_compared`, also of graphs that ONNX Runtime refuses."""
    try:
        return _compared(model, names, output)
    except UserError as error:
        return Rewritten(model, output, []), str(error)


def _compared(model: ModelProto, names: Sequence[str], output: OutputSpec) -> tuple[Rewritten, str]:
    """The graph after these rewrites, and how it differs where it does."""
    plain = simplified(model)
    done = apply(plain, names, output)
    if not done.changes:
        return done, ""
    certificate = certificate_of(plain, output, done)
    if is_proved(certificate, is_quantized(plain)):
        return done, ""
    alike = f"{certificate.agreement:.2%} of classes are alike"
    return done, f"outputs differ by {certificate.difference:.1e} of the largest, {alike}"


def is_proved(certificate: Certificate, is_int8: bool) -> bool:
    """Exact, or in an INT8 graph the same class nearly everywhere."""
    return certificate.is_exact or (is_int8 and certificate.agreement >= ALIKE)


def certificate_of(plain: ModelProto, output: OutputSpec, done: Rewritten, pictures: Iterable[Batch] = ()) -> Certificate:
    """How far a rewritten graph is from the plain one, which returns `output`, on inputs of noise, and of pictures if given."""
    batch, channels, height, width = (size or 1 for size in ports(plain, "the graph")[0].shape)
    inputs = chain(noise((batch, channels, height, width)), pictures)
    return certify(plain, done.model, inputs, done.output if done.output != output else None)
