"""`dlv3deploy inspect --rewrites`: what the exact rewrites make of a graph's convolutions, and their certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto

    from dlv3deploy.core.spec import OutputSpec


def rewrite_facts(fixed: ModelProto, output: OutputSpec, convolutions: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a graph of fixed size that returns `output`: all changes, the work before and after, and how far outputs are apart.

    Raises UserError where ONNX Runtime, which compares them, is missing.
    """
    from dataclasses import asdict

    from dlv3deploy.core.graph import simplified
    from dlv3deploy.engines.rewrites.certified import certificate_of
    from dlv3deploy.engines.rewrites.rewrite import HEAD, IN_THEIR_ORDER, apply

    plain = simplified(fixed)
    done = apply(plain, (*IN_THEIR_ORDER, HEAD), output)
    changes, certificate = done.changes, certificate_of(plain, output, done)
    macs = sum(entry["macs"] for entry in convolutions)
    return {
        "changes": [asdict(change) for change in changes],
        "macs_before": macs,
        "macs_after": macs - sum(change.macs_before - change.macs_after for change in changes),
        "certificate": {**asdict(certificate), "is_exact": certificate.is_exact},
    }


def print_rewrites(facts: dict[str, Any], convolutions: list[dict[str, Any]]) -> None:
    """A line for each change, in the order in which they were made, and what all come to."""
    from dlv3deploy.commands.tables import print_records

    if not facts["changes"]:
        print("no rewrite finds anything to do at this size")
        return
    known = {entry["name"]: entry for entry in convolutions}
    records = [_record(change, known.get(change["node"])) for change in facts["changes"]]
    before, after, certificate = facts["macs_before"], facts["macs_after"], facts["certificate"]
    notes = [
        f"all convolutions: {before / 1e9:.3f} → {after / 1e9:.3f} G multiply-accumulates, {1 - after / before:.1%} fewer",
        f"certificate: on {certificate['inputs']} inputs of noise outputs differ by {certificate['difference']:.1e} of the "
        f"largest, {certificate['agreement']:.2%} of positions have the same class",
    ]
    if not certificate["is_exact"]:
        notes.append("sums in another order: in an INT8 graph one may round to the next step")
    print_records("rewrites", ("convolution", "rate", "map", "valid taps", "rewrite", "MACs", "after"), records, notes)


def _record(change: dict[str, Any], convolution: dict[str, Any] | None) -> tuple[str, ...]:
    about = ("–", "–", "–")
    if convolution is not None:
        rates, shape = convolution["atrous_rate"], convolution["input_shape"]
        about = (
            "×".join(map(str, sorted(set(rates)))),
            f"{shape[1]}×{shape[2]}",
            f"{convolution['valid_tap_share']:.1%}",
        )
    work = (f"{change[key] / 1e6:.1f} M" if change[key] else "–" for key in ("macs_before", "macs_after"))
    return (change["node"], *about, f"{change['rewrite']}: {change['form']}", *work)
