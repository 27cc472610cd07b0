"""Our TensorRT code names only what the real Python bindings have, for each product and version that we claim."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
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
    "learnt": "ITimingCache",
    "profile": "IOptimizationProfile",
    "given": "ITensor",
    "refitter": "Refitter",
    "reader": "OnnxParserRefitter",
}
NOT_TENSORRT = {"write_bytes", "__version__", "__name__", "compute_capability", "__members__", "__init__", "split"}
FILES = ("dialect.py", "tensorrt_backend.py", "tensorrt_engine.py", "build_progress.py", "timing_cache.py")
VERSIONS = ("8.6.1", "10.3.0", "10.16.1", "11.4.0", "rtx-1.7.1")


@dataclass(frozen=True)
class Use:
    """A member that is taken from a class, or from the module ("" then), where `has` found each of `guards`."""

    owner: str
    member: str
    guards: frozenset[str] = frozenset()


def uses_in(file: str) -> set[Use]:
    """Every attribute that `file` takes from a TensorRT module or object."""
    found: set[Use] = set()

    def walk(node: ast.AST, guards: frozenset[str]) -> None:
        if isinstance(node, ast.If) and (asked := guards_of(node.test)):
            for inner in node.body:
                walk(inner, guards | asked)
            for inner in (node.test, *node.orelse):
                walk(inner, guards)
            return
        if isinstance(node, ast.Attribute) and node.attr not in NOT_TENSORRT and (owner := owner_of(node.value)) is not None:
            found.add(Use(owner, node.attr, guards))
        for inner in ast.iter_child_nodes(node):
            walk(inner, guards)

    walk(ast.parse((FOLDER / file).read_text()), frozenset())
    return found


def guards_of(test: ast.expr) -> frozenset[str]:
    """What an `if` asks the bindings for: the texts of `has(module, TEXT)`, alone or joined by `and`."""
    parts = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
    calls = [part for part in parts if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "has"]
    return frozenset(str(call.args[1].value) for call in calls if isinstance(call.args[1], ast.Constant))


def owner_of(holder: ast.expr) -> str | None:
    """The class that `holder` is or holds an instance of, "" for the module, None for what is not TensorRT's."""
    if isinstance(holder, ast.Name):
        return "" if holder.id in ("trt", "module") else CLASSES.get(holder.id)
    if isinstance(holder, ast.Attribute):
        if isinstance(holder.value, ast.Name) and holder.value.id in ("trt", "module"):
            return holder.attr
        return {"context": "IExecutionContext"}.get(holder.attr)
    return None


def exists(api: dict[str, list[str]], owner: str, member: str) -> bool:
    return member in (api.get(owner, []) if owner else api)


USED = {use for file in FILES for use in uses_in(file)}


def test_the_walk_finds_the_calls_that_matter() -> None:
    pairs = {(use.owner, use.member): use.guards for use in USED}
    assert {("OnnxParser", "parse"), ("Builder", "build_serialized_network"), ("IExecutionContext", "execute_async_v3")} <= set(
        pairs
    )
    assert pairs["NetworkDefinitionCreationFlag", "STRONGLY_TYPED"] == {"NetworkDefinitionCreationFlag.STRONGLY_TYPED"}
    assert pairs["BuilderFlag", "INT8"] == {"BuilderFlag.FP16"}
    assert pairs["IBuilderConfig", "set_compute_capability"] == {"ComputeCapability"}
    assert pairs["ITimingCache", "combine"] == pairs["BuilderFlag", "GPU_FALLBACK"] == set()


@pytest.mark.real_data
@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_exists_in_the_bindings(shared: Path, version: str) -> None:
    """Where `has` is asked for something that a version lacks, what stands behind it is not reached there."""
    api = json.loads((shared / "tensorrt-api" / f"{version}.json").read_text())
    missing = [
        f"{use.owner}.{use.member}".strip(".")
        for use in USED
        if all(exists(api, *(guard.split(".") if "." in guard else ("", guard))) for guard in use.guards)
        and not exists(api, use.owner, use.member)
    ]
    assert not missing


@pytest.mark.real_data
def test_the_walk_would_find_a_name_that_is_not_there(shared: Path) -> None:
    api = json.loads((shared / "tensorrt-api" / "8.6.1.json").read_text())
    assert not exists(api, "NetworkDefinitionCreationFlag", "STRONGLY_TYPED") and not exists(api, "", "IProgressMonitor")
    assert exists(json.loads((shared / "tensorrt-api" / "10.3.0.json").read_text()), "", "IProgressMonitor")


def test_missing_bindings_name_the_way_to_install_them() -> None:
    absent = Dialect("tensorrt-moon", "tensorrt_moon", "install dlv3deploy[moon]", (1, 0), False)
    with pytest.raises(UserError, match=r"dlv3deploy\[moon\]"):
        load_dialect(absent)


def test_bindings_that_are_too_old_are_refused(monkeypatch) -> None:
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="8.5.3"))
    with pytest.raises(UserError, match=r"8\.5\.3.*older than 8\.6"):
        load_dialect(TENSORRT)


def test_the_installed_tensorrt_rtx_is_taken() -> None:
    pytest.importorskip("tensorrt_rtx")
    assert load_dialect(TENSORRT_RTX).__version__
