"""Our TensorRT code names only what the real Python bindings have, for each product and version that we claim."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import dlv3deploy.engines
from dlv3deploy.core.errors import UserError
from dlv3deploy.engines.dialect import TENSORRT, TENSORRT_RTX, Dialect, load_dialect

FOLDER = Path(dlv3deploy.engines.__file__).parent
# The class of TensorRT that a variable of this name holds in our code.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "error": "ParserError",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}
PORTABLE_ONLY = {"num_compute_capabilities", "set_compute_capability", "ComputeCapability"}
NOT_TENSORRT = {"write_bytes", "__version__", "__name__", "compute_capability", "__members__", "__init__", "split"}


def names_used(file: str) -> set[tuple[str, str]]:
    """(class or "", member) for every attribute that `file` takes from a TensorRT module or object."""
    used = set()
    for node in ast.walk(ast.parse((FOLDER / file).read_text())):
        if not isinstance(node, ast.Attribute):
            continue
        holder = node.value
        if isinstance(holder, ast.Name) and holder.id in ("trt", "module"):
            used.add(("", node.attr))
        elif isinstance(holder, ast.Attribute) and isinstance(holder.value, ast.Name) and holder.value.id in ("trt", "module"):
            used.add((holder.attr, node.attr))
        elif isinstance(holder, ast.Name) and holder.id in CLASSES:
            used.add((CLASSES[holder.id], node.attr))
        elif isinstance(holder, ast.Name) and holder.id == "flags":
            used.add(("NetworkDefinitionCreationFlag", node.attr))
        elif isinstance(holder, ast.Attribute) and holder.attr == "_context":
            used.add(("IExecutionContext", node.attr))
    return {(owner, member) for owner, member in used if member not in NOT_TENSORRT}


USED = {pair for file in ("dialect.py", "tensorrt_backend.py", "tensorrt_engine.py") for pair in names_used(file)}


def test_the_walk_finds_the_calls_that_matter() -> None:
    assert {("OnnxParser", "parse"), ("Builder", "build_serialized_network"), ("IExecutionContext", "execute_async_v3")} <= USED
    assert ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") in USED


@pytest.mark.real_data
@pytest.mark.parametrize("version", ["10.3.0", "10.16.1", "11.4.0", "rtx-1.7.1"])
def test_every_name_exists_in_the_bindings(shared: Path, version: str) -> None:
    api = json.loads((shared / "tensorrt-api" / f"{version}.json").read_text())
    portable = version.startswith("rtx")
    missing = [
        f"{owner}.{member}" if owner else member
        for owner, member in sorted(USED)
        if (portable or member not in PORTABLE_ONLY) and member not in (api.get(owner, []) if owner else api)
    ]
    assert not missing


@pytest.mark.real_data
def test_the_oldest_version_we_take_is_the_first_with_strongly_typed_networks(shared: Path) -> None:
    old = json.loads((shared / "tensorrt-api" / "8.6.1.json").read_text())
    assert "STRONGLY_TYPED" not in old["NetworkDefinitionCreationFlag"]
    assert TENSORRT.oldest == (10, 0)


def test_missing_bindings_name_the_way_to_install_them() -> None:
    absent = Dialect("tensorrt-moon", "tensorrt_moon", "install dlv3deploy[moon]", (1, 0), False)
    with pytest.raises(UserError, match=r"dlv3deploy\[moon\]"):
        load_dialect(absent)


def test_bindings_that_are_too_old_are_refused(monkeypatch) -> None:
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.6.1"))
    with pytest.raises(UserError, match=r"8\.6\.1.*10\.0"):
        load_dialect(TENSORRT)


def test_the_installed_tensorrt_rtx_is_taken() -> None:
    pytest.importorskip("tensorrt_rtx")
    assert load_dialect(TENSORRT_RTX).__version__
