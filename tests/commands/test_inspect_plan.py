"""`dlv3deploy inspect --plan`: the kernels that TensorRT-RTX compiles, their least time on a device, and two plans compared."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny_models import write_tiny
from typer.testing import CliRunner, Result

from dlv3deploy.cli import app

pytest.importorskip("onnx")


def inspect(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)], env={"COLUMNS": "200"})


def refused(*arguments: object) -> str:
    done = inspect(*arguments)
    assert done.exit_code == 1, (done.stdout, done.stderr, done.exception)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def int8(tmp_path: Path) -> Path:
    from calibration_graphs import quantized_deeplab

    path = tmp_path / "model.int8.onnx"
    path.write_bytes(quantized_deeplab().SerializeToString())
    return path


@pytest.fixture
def compiler() -> None:
    pytest.importorskip("tensorrt_rtx")


def test_a_plan_needs_tensorrt_rtx(int8: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    line = refused(int8, "--plan")
    assert "tensorrt-rtx: cannot be imported" in line and "install dlv3deploy[tensorrt-rtx]" in line


def test_a_plan_is_of_a_graph_or_an_engine_of_tensorrt(work: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert "a checkpoint has no plan" in refused(tmp_path / "model.safetensors", "--plan")
    built = CliRunner().invoke(app, ["build-engine", "--workspace", str(work), "--backend", "onnxruntime"])
    assert built.exit_code == 0, built.output
    (engine,) = work.glob("*.engine")
    assert "an engine of onnxruntime is a graph" in refused(engine, "--plan")
    assert f"--fp16 with {engine}" in refused(engine, "--plan", "--fp16")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--device", "rtx4090"), "--device: is about a compiled plan; add --plan"),
        (("--plan", "--fp16", "--bf16"), "--fp16 and --bf16: exclude each other"),
        (("--fp16", "--picture", "a.png"), "--fp16, --picture: is about a compiled plan"),
        (("--plan", "--classes", "voc"), "--classes: is nothing that a plan depends on; leave it out"),
        (("--plan", "--device", "gtx1080"), "use one of xavier, orin-nano"),
        (("--plan", "--picture", "a.txt"), "end the name in .png, .svg, .pdf"),
        (("--plan", "--size", "64x64"), "is fixed at 64×96"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(work: Path, arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(work / "model.onnx", *arguments)


def test_two_artefacts_are_plans_to_compare_and_three_are_too_many(work: Path) -> None:
    model = work / "model.onnx"
    assert "2 artefacts" in refused(model, model)
    assert "3 artefacts" in refused(model, model, model, "--plan")


def test_an_open_size_must_be_given_where_the_file_says_none(tmp_path: Path) -> None:
    import onnx
    from calibration_graphs import Graph

    graph = Graph()
    model = graph.model(graph.conv("image", "first", (8, 3, 3, 3)), 17)
    for place, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = name
    onnx.save(model, tmp_path / "open.onnx")
    assert "leaves its input's size open; add --size" in refused(tmp_path / "open.onnx", "--plan")


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_the_plan_is_what_tensorrt_rtx_compiles(int8: Path) -> None:
    graph = json.loads(inspect(int8, "--json").stdout)
    plan = json.loads(inspect(int8, "--plan", "--json").stdout)
    assert plan["builder"].startswith("tensorrt-rtx 1.") and plan["compute_capability"] == "8.9"
    assert plan["convolutions"] == len(graph["convolutions"])
    assert plan["others"] >= len(graph["further_int8_kernels"])
    assert plan["macs"] >= graph["macs"]
    assert sum(kernel["bytes_moved"] for kernel in plan["kernels"]) == plan["bytes_moved"]
    shown = inspect(int8, "--plan", "--all").stdout
    assert f"{plan['convolutions']} convolution kernels and {plan['others']} others" in shown
    assert shown.count("Int8") >= plan["convolutions"] and "least time" not in shown


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_a_device_adds_estimates_that_are_called_so(work: Path) -> None:
    plan = json.loads(inspect(work / "model.onnx", "--plan", "--device", "orin nano", "--json").stdout)
    assert (plan["device"], plan["compute_capability"]) == ("Jetson Orin Nano 8GB", "8.6")
    assert sum(kernel["roofline_ms"] for kernel in plan["kernels"]) == pytest.approx(plan["roofline_ms"])
    assert {kernel["bound"] for kernel in plan["kernels"]} <= {"memory", "products"}
    shown = inspect(work / "model.onnx", "--plan", "--device", "orin nano").stdout
    assert "ESTIMATE for Jetson Orin Nano 8GB" in shown and "nothing was run" in shown


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_half_precision_moves_half_of_the_bytes_of_convolutions(work: Path) -> None:
    whole, half, brain = (
        json.loads(inspect(work / "model.onnx", "--plan", "--json", *options).stdout)
        for options in ((), ("--fp16",), ("--bf16",))
    )
    for plan, kind in ((half, "Half"), (brain, "BFloat16")):
        assert plan["bytes_moved"] < 0.75 * whole["bytes_moved"]
        assert {t["type"] for k in plan["kernels"] if k["is_convolution"] for t in k["writes"]} == {kind}


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_two_plans_are_set_beside_each_other_and_drawn(work: Path, int8: Path, tmp_path: Path) -> None:
    plain, picture = work / "model.onnx", tmp_path / "plans.png"
    compared = json.loads(inspect(plain, int8, "--plan", "--json", "--picture", picture).stdout)
    assert [plan["file"] for plan in compared["plans"]] == [str(plain), str(int8)]
    stem = next(change for change in compared["changes"] if change["node"] == "stem")
    assert (stem["before"]["kernels"], stem["after"]["kernels"]) == (1, 1)
    alone = [change["node"] for change in compared["changes"] if not change["before"]["kernels"]]
    assert any(node.endswith("/quantize") for node in alone)
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = inspect(plain, int8, "--plan").stdout
    assert f"A: {plain}, B: {int8}" in shown.replace("\n", " ").replace("  ", " ") and "kernels A" in shown
    again = inspect(plain, plain, "--plan").stdout
    assert "both compile into the same kernels" in again


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
def test_a_picture_that_cannot_be_written_is_refused_and_an_older_one_stays(work: Path, tmp_path: Path) -> None:
    write_tiny(work / "model.onnx")
    (tmp_path / "folder.png").mkdir()
    assert "is a folder" in refused(work / "model.onnx", "--plan", "--picture", tmp_path / "folder.png")


@pytest.mark.usefixtures("compiler")
def test_a_plan_may_be_of_the_graph_as_engines_get_it(work: Path) -> None:
    asked = ("--plan", "--json"), ("--plan", "--json", "--rewrites")
    plain, built = (json.loads(inspect(work / "model.onnx", *options).stdout) for options in asked)
    names = [{node for kernel in plan["kernels"] for node in kernel["nodes"]} for plan in (plain, built)]
    assert names[0] != names[1] and built["bytes_moved"] < plain["bytes_moved"]
