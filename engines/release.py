"""An engine takes its place together with its manifest, or not at all, though they are two files.

The manifest goes first and holds the older one besides, the engine second, and then the older manifest is dropped. Whoever is
killed in between leaves an engine with a manifest that knows it: the new one, or the older one that it replaces.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from dlv3deploy.core.errors import UserError
from dlv3deploy.core.files import replacing
from dlv3deploy.core.workspace import manifest_path
from dlv3deploy.engines.manifest import Manifest, relative_source


def copied(source: Path, manifest: Manifest, engine: Path) -> Manifest:
    """Release a copy of the engine file `source`, with this manifest, at `engine`."""

    def copy(fresh: Path) -> Manifest:
        shutil.copyfile(source, fresh)
        return replace(manifest, onnx=relative_source(source.parent / manifest.onnx, engine))

    return release(engine, copy)


def release(engine: Path, make: Callable[[Path], Manifest]) -> Manifest:
    """Let `make` write a file, and put it in the place of `engine`, with the manifest that it returns beside it.

    When anything fails, or the process is killed, an older engine and its manifest stay usable. Raises what `make` raises, and
    UserError where the place cannot be written.
    """
    place, older = manifest_path(engine), None
    with suppress(UserError):
        older = Manifest.read(engine) if engine.is_file() else None
    with replacing(engine) as fresh:
        manifest = make(fresh)
        manifest.write(place, previous=older)
    manifest.write(place)
    return manifest
