"""Whether an engine still fits: its manifest against the files that it was made from, the backend, and this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dlv3deploy.core.errors import StaleArtefact, UserError
from dlv3deploy.core.files import read_json, sha256_of
from dlv3deploy.core.graph import embedded_spec, load_onnx
from dlv3deploy.core.progress import say
from dlv3deploy.engines.dialect import DIALECTS, takes_engines_of, version_of
from dlv3deploy.engines.manifest import Builder, Calibration, Manifest, Target
from dlv3deploy.engines.rewrites.head import NAME as WITHOUT_HEAD
from dlv3deploy.engines.tensorrt_options import TensorRTOptions

OLDEST_COMPATIBLE = (8, 0)  # compute capability that hardware-compatible engines are for
OF_AN_ENGINE = ("height", "width", "dynamic_size", "dynamic_batch")  # of an input: chosen when the engine was built
Difference = tuple[str, object, object]  # a field, what it was when the engine was made, what it is now


def check_fresh(engine: Path, manifest: Manifest, builder: Builder, target: Target) -> None:
    """Raise StaleArtefact, naming the first field that differs and both values, unless the engine fits.

    Fields that something else tells are held against that: the engine and its ONNX file, the spec in that file, the calibration
    table, the backend, this machine. Every other field must be as the manifest was written.
    """
    for name, found, now in _differences(engine, manifest, builder, target):
        if found != now:
            raise StaleArtefact(str(engine), name, found, now, manifest.rebuild(engine))


def first_change(engine: Path, manifest: Manifest) -> str | None:
    """What makes an engine stale wherever it is: its file, one that it was made from, or its manifest has changed."""
    for name, found, now in (*_of_its_files(engine, manifest), *_of_seals(manifest)):
        if found != now:
            return f"{name} was {found} when it was made and is {now} now"
    return None


def _differences(engine: Path, manifest: Manifest, builder: Builder, target: Target) -> Iterator[Difference]:
    yield from _of_its_files(engine, manifest)
    yield "builder", manifest.builder.name, builder.name
    options = TensorRTOptions.from_flags(manifest.builder.flags, ())
    if builder.name not in DIALECTS or not takes_engines_of(options, manifest.builder.version, builder.version):
        yield f"{builder.name} version", manifest.builder.version, builder.version
    yield from _of_flags(manifest.builder.flags, builder.flags)
    if not (options.hardware_compatible and version_of(target.compute_capability or "0") >= OLDEST_COMPATIBLE):
        yield from _of_the_target(manifest.target, target)
    yield from _of_seals(manifest)


def _of_its_files(engine: Path, manifest: Manifest) -> Iterator[Difference]:
    yield "sha256 of the engine file", manifest.engine_sha256[:12], sha256_of(engine)[:12]
    source = engine.parent / manifest.onnx
    if source.is_file():
        yield f"sha256 of {source.name}", manifest.onnx_sha256[:12], sha256_of(source)[:12]
        yield from _of_the_spec(manifest, source)
    else:
        say(f"{engine}: {source} is gone, so whether the engine still fits it is not checked")
    if manifest.calibration is not None:
        yield from _of_calibration(engine, manifest, manifest.calibration)


def _of_seals(manifest: Manifest) -> Iterator[Difference]:
    for name, (then, now) in manifest.broken_seals().items():
        yield f"the manifest's {name}", f"one whose sha256 begins with {then}", f"one whose begins with {now}"


def _of_the_target(then: Target, now: Target) -> Iterator[Difference]:
    for name, found, here in (
        ("device", then.device, now.device),
        ("compute capability", then.compute_capability, now.compute_capability),
        ("driver", then.driver, now.driver),
    ):
        if found is not None:
            yield name, found, here


def _of_the_spec(manifest: Manifest, source: Path) -> Iterator[Difference]:
    """Against the spec in the ONNX file; a foreign file has none, and options said what is in the manifest."""
    embedded = embedded_spec(load_onnx(source), str(source))
    if embedded is None:
        return
    if WITHOUT_HEAD in manifest.rewrites:
        embedded = replace(embedded, output=replace(manifest.spec.output, kind="scores"))
    ours, theirs = asdict(manifest.spec), asdict(embedded)
    for part, content in theirs.items():
        fields = content if isinstance(content, dict) and isinstance(ours[part], dict) else {"": content}
        for name, value in fields.items():
            if not (part == "input" and name in OF_AN_ENGINE):
                yield f"{part} {name}".strip(), ours[part][name] if name else ours[part], value


def _of_calibration(engine: Path, manifest: Manifest, calibration: Calibration) -> Iterator[Difference]:
    yield "calibration resolution", calibration.resolution, (manifest.spec.input.height, manifest.spec.input.width)
    table = engine.parent / calibration.table
    if not table.is_file():
        say(f"{engine}: {table} is gone, so whether the engine still fits it is not checked")
        return
    told = _table(table)
    for name, found, now in (
        ("model_sha256", calibration.model_sha256[:12], str(told.get("model_sha256"))[:12]),
        ("images_sha256", calibration.images_sha256[:12], str(told.get("images_sha256"))[:12]),
        ("images", calibration.images, told.get("images")),
        ("method", calibration.method, told.get("chosen")),
    ):
        yield f"{name} in {table.name}", found, now


def _table(table: Path) -> dict[str, Any]:
    """What a calibration table says; nothing where it cannot be read."""
    try:
        return dict(read_json(table))
    except (UserError, TypeError, ValueError):
        return {}


def _of_flags(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    for name in sorted({*then, *now}):
        yield f"builder's {name}", then.get(name, "unset"), now.get(name, "unset")
