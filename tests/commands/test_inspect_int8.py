"""What `inspect` says of a Q/DQ file: which convolutions can be INT8 kernels by TensorRT's rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app

pytest.importorskip("onnx")


def inspect(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def int8(tmp_path: Path) -> Path:
    from calibration_graphs import quantized_deeplab

    path = tmp_path / "model.int8.onnx"
    path.write_bytes(quantized_deeplab().SerializeToString())
    return path


def test_every_convolution_has_what_its_kernel_reads_does_and_writes(int8: Path) -> None:
    facts = json.loads(inspect(int8, "--json").stdout)
    kernels = {c["name"]: (c["reads_int8"], c["fused"], c["writes_int8"]) for c in facts["convolutions"]}
    assert kernels["stem"] == (True, ["Relu"], True)
    assert facts["is_quantized"] and len(facts["further_int8_kernels"]) == 2
    text = inspect(int8, "--all").stdout
    writing = sum(writes for *_, writes in kernels.values())
    assert f"{len(kernels) - 1} convolutions can read it and {writing} of them write it" in text
    assert "2 further kernels write INT8: image, " in text
    (stem,) = [line for line in text.splitlines() if line.startswith("│ stem ")]
    assert "INT8 + Relu → INT8" in stem
    (last,) = [line for line in text.splitlines() if "(2) " in line and "→" not in line]
    assert last == "(2) it makes the graph's output"
    assert sum("INT8 → float (2)" in line for line in text.splitlines()) == 1


@pytest.mark.parametrize("name", ["", "conv"])
def test_a_tool_that_gives_nodes_no_names_of_their_own_leaves_nothing_uncounted(int8: Path, name: str) -> None:
    import onnx

    whole = json.loads(inspect(int8, "--json").stdout)
    model = onnx.load(str(int8))
    for node in model.graph.node:
        node.name = name
    int8.write_bytes(model.SerializeToString())
    facts = json.loads(inspect(int8, "--json").stdout)
    keys = ("reads_int8", "writes_int8", "fused")
    assert [[c[key] for key in keys] for c in facts["convolutions"]] == [
        [c[key] for key in keys] for c in whole["convolutions"]
    ]
    assert facts["reading_int8"] == whole["reading_int8"] == len(facts["convolutions"]) - 1


def test_a_float_file_has_no_word_on_int8(work: Path) -> None:
    text = inspect(work / "model.onnx", "--all").stdout
    assert "INT8" not in text and "reads →" not in text
    assert not json.loads(inspect(work / "model.onnx", "--json").stdout)["is_quantized"]
