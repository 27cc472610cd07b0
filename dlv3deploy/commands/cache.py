"""`dlv3deploy cache`: the engines that were built on this machine, and making room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlv3deploy.commands.options import JsonOption, parse_choice

if TYPE_CHECKING:
    from dlv3deploy.engines.cache import Entry

ACTIONS = ("list", "prune")


def cache(
    action: Annotated[str, typer.Argument(help="list or prune.", metavar="list|prune")],
    unused: Annotated[
        float | None, typer.Option(help="prune: remove what was not used for so many days, too; 0 removes all.", min=0.0)
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """List the engines that were built before, or remove those that are damaged, of another version, or long unused.

    `build-engine` keeps every engine in ~/.cache/dlv3deploy/engines (DLV3DEPLOY_CACHE), by everything that decides what it
    makes: the same build again takes it from there. Engines in workspaces are copies and stay.
    """
    import json

    from dlv3deploy.core.cache_folder import cache_folder
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.engines.cache import FOLDER, EngineCache

    chosen = parse_choice(action, "cache", ACTIONS)
    if unused is not None and chosen == "list":
        raise UserError("--unused with list", "says what prune removes", "leave it out")
    kept = EngineCache(cache_folder() / FOLDER)
    if chosen == "list":
        entries = kept.entries()
        facts: dict[str, Any] = {"folder": str(kept.folder), "engines": [_facts(entry) for entry in entries]}
        print(json.dumps(facts)) if json_output else _print(str(kept.folder), entries)
        return
    removed, held = kept.prune(unused)
    freed = sum(entry.bytes for entry in removed)
    if json_output:
        print(
            json.dumps({"folder": str(kept.folder), "removed": [e.key for e in removed], "bytes": freed, "in_use": len(held)})
        )
        return
    waiting = f"; {len(held)} are being built and stay" if held else ""
    print(f"removed {_engines(len(removed))}, {freed / 1e6:.1f} MB, from {kept.folder}{waiting}")


def _facts(entry: Entry) -> dict[str, Any]:
    manifest = entry.manifest
    facts: dict[str, Any] = {"key": entry.key, "bytes": entry.bytes, "used": entry.used, "is_whole": manifest is not None}
    if manifest is not None:
        facts |= {
            "precision": manifest.precision,
            "builder": f"{manifest.builder.name} {manifest.builder.version}",
            "device": manifest.target.device,
            "compute_capability": manifest.target.compute_capability,
            "flags": dict(manifest.builder.flags),
            "rewrites": list(manifest.rewrites),
            "size": [manifest.spec.input.height, manifest.spec.input.width],
            "onnx": manifest.onnx,
            "p50_ms": manifest.timing.p50_ms if manifest.timing else None,
        }
    return facts


def _print(folder: str, entries: list[Entry]) -> None:
    import time

    from dlv3deploy.commands.tables import print_records

    if not entries:
        print(f"no engines in {folder}")
        return
    now, records = time.time(), []
    for entry in entries:
        facts, days = _facts(entry), (now - entry.used) / 86400
        about = ("older" if entry.is_older else "damaged", "–", "–", "–", "–", "–")
        if entry.manifest is not None:
            latency = f"{facts['p50_ms']:.1f} ms" if facts["p50_ms"] is not None else "–"
            size = "×".join(map(str, facts["size"]))
            device = "any GPU" if facts["device"].startswith("any GPU") else facts["device"]
            where = [facts["builder"], device, *filter(None, [facts["compute_capability"]])]
            rewrites = ", ".join(facts["rewrites"]) or "–"
            about = (facts["precision"], size, ", ".join(where), rewrites, latency, facts["onnx"])
        records.append((entry.key[:12], *about, f"{entry.bytes / 1e6:.1f} MB", "today" if days < 1 else f"{days:.0f} days ago"))
    total = sum(entry.bytes for entry in entries) / 1e6
    header = ("key", "precision", "input", "built by, for", "rewrites", "latency", "built from", "file", "used")
    print_records(f"{folder}: {_engines(len(entries))}, {total:.1f} MB", header, records)


def _engines(count: int) -> str:
    return f"{count} engine{'s' * (count != 1)}"
