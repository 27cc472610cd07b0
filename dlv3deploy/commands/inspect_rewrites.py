"""`dlv3deploy inspect --rewrites`: what the exact rewrites make of a graph's convolutions, and their certificate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto

    from dlv3deploy.core.engine import Batch
    from dlv3deploy.core.spec import ModelSpec

PICTURES = 4


def rewrite_facts(
    fixed: ModelProto, spec: ModelSpec, convolutions: list[dict[str, Any]], images: Path | None
) -> dict[str, Any]:
    """Of a graph of the spec's, fixed size: all changes, the work before and after, and how far outputs are apart, on noise and
    on some pictures of the folder `images`.

    Raises UserError where ONNX Runtime, which compares them, is missing, and for a folder without pictures.
    """
    from dataclasses import asdict

    from dlv3deploy.core.graph import simplified
    from dlv3deploy.engines.precision import is_quantized
    from dlv3deploy.engines.rewrites.certified import BY_DEFAULT, certificate_of, is_proved
    from dlv3deploy.engines.rewrites.rewrite import HEAD, IN_THEIR_ORDER, apply

    plain = simplified(fixed)
    done = apply(plain, (*IN_THEIR_ORDER, HEAD), spec.output)
    pictures = list(_pictures(images, spec)) if images else []
    changes, certificate = done.changes, certificate_of(plain, spec.output, done, pictures)
    verdict = {"is_exact": certificate.is_exact, "is_proved": is_proved(certificate, is_quantized(plain))}
    macs = sum(entry["macs"] for entry in convolutions)
    usual = apply(plain, (*BY_DEFAULT, HEAD), spec.output).changes
    return {
        "changes": [asdict(change) for change in changes],
        "by_default": sorted({change.rewrite for change in usual}),
        "macs_before": macs,
        "macs_after": macs - sum(change.macs_before - change.macs_after for change in changes),
        "macs_after_by_default": macs - sum(change.macs_before - change.macs_after for change in usual),
        "certificate": {**asdict(certificate), "pictures": len(pictures), **verdict},
    }


def _pictures(folder: Path, spec: ModelSpec) -> Iterator[Batch]:
    """Some of a folder, spread evenly, as the network sees them."""
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.core.images import list_images, read_frame
    from dlv3deploy.core.preprocess import preprocess

    found = list_images(folder) if folder.is_dir() else []
    if not found:
        raise UserError(f"--images {folder}", "there is no picture in it", "name a folder of images")
    count = min(PICTURES, len(found))
    for number in range(count):
        yield preprocess(read_frame(found[number * len(found) // count]), spec.input)[0]


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
        _usual(facts),
        f"certificate: on {_inputs(certificate)} outputs differ by {certificate['difference']:.1e} of the "
        f"largest, {certificate['agreement']:.2%} of positions have the same class",
    ]
    if not certificate["is_exact"]:
        harmless = "sums in another order: in an INT8 graph one may round to the next step"
        notes.append(harmless if certificate["is_proved"] else "NOT PROVED: no engine is built with these rewrites")
    print_records("rewrites", ("convolution", "rate", "map", "valid taps", "rewrite", "MACs", "after"), records, notes)


def _usual(facts: dict[str, Any]) -> str:
    """What of it an engine gets that is built without --rewrites."""
    if not facts["by_default"]:
        return "none of these is applied by default; build-engine --rewrites applies those that are named"
    before, after = facts["macs_before"], facts["macs_after_by_default"]
    applied = " and ".join(facts["by_default"])
    fewer = f"{after / 1e9:.3f} G, {1 - after / before:.1%} fewer"
    return f"by default TensorRT's engines have {applied}: {fewer}; the others by --rewrites"


def _inputs(certificate: dict[str, Any]) -> str:
    pictures = certificate["pictures"]
    of_noise = f"{certificate['inputs'] - pictures} inputs of noise"
    return f"{of_noise} and {pictures} picture{'s' * (pictures > 1)}" if pictures else of_noise


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
