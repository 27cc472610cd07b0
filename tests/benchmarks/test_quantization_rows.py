"""Rows of the quantisation table: made once, judged against the float model, and with the reason where there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import quantization_makers
import quantization_rows
from measured import Limits
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, numpy_helper
from peer_environment import Environment, NotInstalled, Peers
from quantization_cases import Case, Request, open_case
from quantization_masks import UnoptimisedEngine, read_masks
from quantization_methods import FLOAT, Method
from quantization_rows import Bench, Compiled, Row, Why
from quantization_scores import MaskScores
from tiny_models import write_tiny

from dlv3deploy.core.errors import CheckFailed
from dlv3deploy.core.files import sha256_of
from dlv3deploy.core.images import read_frame
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.measure.evaluate import evaluate

pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

STAND_IN = Path(__file__).parent / "stand_in_for_calibrate.py"
LIMITS = Limits(600, 4000)
MIN_MAX = Method("ours", "min-max")


class NoPeers(Peers):
    """On a machine where nothing can be installed."""

    def python(self, environment: Environment) -> Path:
        raise NotInstalled("its environment", "could not be set up: no space left", "free some")


@pytest.fixture
def case(tmp_path: Path, scenes: Path) -> Case:
    request = Request("tiny", write_tiny(tmp_path / "tiny.onnx"), scenes, scenes / "train" / "images")
    return open_case(request, tmp_path / "space" / "tiny", 4, 2, None)


@pytest.fixture
def bench(tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """With the float model's row measured, a stand-in for our command, and no TensorRT-RTX."""
    monkeypatch.setattr(quantization_makers, "PROGRAM", (sys.executable, str(STAND_IN)))
    monkeypatch.setattr(quantization_rows, "installed", lambda _package: None)
    made = bench_in(tmp_path, LIMITS)
    made.float_row(case)
    return made


def bench_in(tmp_path: Path, limits: Limits, with_openvino: bool = False) -> Bench:
    return Bench(tmp_path / "space", NoPeers(tmp_path / "space"), limits, with_openvino)


def runs(tmp_path: Path, method: Method) -> list[str]:
    return (tmp_path / "space" / "tiny" / method.folder / "runs.txt").read_text(encoding="utf-8").splitlines()


def scores_of(row: Row) -> MaskScores:
    assert isinstance(row.scores, MaskScores), row.scores
    return row.scores


def test_the_float_row_is_what_evaluate_says_and_agrees_with_itself(tmp_path: Path, case: Case, scenes: Path) -> None:
    scores = scores_of(bench_in(tmp_path, LIMITS).float_row(case))
    from dlv3deploy.core.datasets import open_dataset

    samples = open_dataset(scenes, "val", case.spec.classes).samples[::2]
    with UnoptimisedEngine(case.model.read_bytes(), case.spec, "tiny") as engine:
        expected = evaluate(Segmenter(engine), samples)
    assert (scores.miou, scores.per_class_iou, scores.images) == (expected.miou, expected.per_class_iou, 3)
    assert scores.agreement == 1.0


def test_a_row_of_ours_has_its_scores_its_cost_and_what_its_graph_says(tmp_path: Path, case: Case, bench: Bench) -> None:
    row = bench.row(case, MIN_MAX)
    scores = scores_of(row)
    assert row.title == "dlv3deploy min-max"
    assert row.seconds is not None and row.seconds > 0
    assert row.peak_mb is not None and 20 < row.peak_mb < LIMITS.memory_mb
    assert row.int8_share is not None and 0.9 < row.int8_share < 1  # image pooling stays in float
    assert row.structure is not None and row.structure.pairs > 3
    assert row.structure.convolutions >= row.structure.writing_int8 > row.structure.others > 0
    assert row.tensorrt == Why("not installed")
    folder = tmp_path / "space" / "tiny"
    masks, floats = (read_masks(folder / name / "masks.npz") for name in (MIN_MAX.folder, FLOAT.folder))
    assert scores.agreement == np.mean([mask == other for mask, other in zip(masks, floats, strict=True)])
    assert scores.agreement < 1
    with UnoptimisedEngine((folder / MIN_MAX.folder / "int8.onnx").read_bytes(), case.spec, "int8") as engine:
        again = Segmenter(engine)(read_frame(case.judged[1].image), case.judged[1].size)
    assert np.array_equal(masks[1], again)


@pytest.mark.slow
def test_what_tensorrt_rtx_compiles_is_in_the_row_and_in_the_float_models(
    case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(quantization_rows, "installed", lambda _package: "1.7.1.116")
    floats, row = bench.float_row(case), bench.row(case, MIN_MAX)
    assert isinstance(floats.tensorrt, Compiled) and isinstance(row.tensorrt, Compiled)
    assert floats.tensorrt.convolutions == row.tensorrt.convolutions > 3
    assert row.tensorrt.others > floats.tensorrt.others
    assert row.tensorrt.bytes_moved > 3 * 4 * case.size[0] * case.size[1]


def test_a_row_that_was_measured_is_not_measured_again(tmp_path: Path, case: Case, bench: Bench) -> None:
    first = bench.row(case, MIN_MAX)
    assert bench_in(tmp_path, LIMITS).row(case, MIN_MAX) == first
    assert runs(tmp_path, MIN_MAX) == ["min-max None None"]


def test_a_row_of_another_machine_is_measured_again(
    tmp_path: Path, case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.row(case, MIN_MAX)
    monkeypatch.setattr(quantization_makers, "_machine", lambda: "another one")
    assert bench.row(case, MIN_MAX).day
    assert len(runs(tmp_path, MIN_MAX)) == 2


def test_a_row_is_measured_again_when_its_model_is_another(tmp_path: Path, case: Case, bench: Bench, scenes: Path) -> None:
    first = bench.row(case, MIN_MAX)
    other = Request("tiny", write_tiny(tmp_path / "other.onnx", seed=3), scenes, scenes / "train" / "images")
    changed = open_case(other, tmp_path / "space" / "tiny", 4, 2, None)
    bench.float_row(changed)
    assert scores_of(bench.row(changed, MIN_MAX)) != scores_of(first)
    assert len(runs(tmp_path, MIN_MAX)) == 2


def test_a_quantised_model_that_was_lost_or_changed_is_made_again(tmp_path: Path, case: Case, bench: Bench) -> None:
    first = bench.row(case, MIN_MAX)
    model = tmp_path / "space" / "tiny" / MIN_MAX.folder / "int8.onnx"
    before = sha256_of(model)
    model.write_bytes(b"cut short")
    assert scores_of(bench.row(case, MIN_MAX)) == scores_of(first)
    assert sha256_of(model) == before
    assert len(runs(tmp_path, MIN_MAX)) == 2


def test_options_reach_the_command(tmp_path: Path, case: Case, bench: Bench) -> None:
    method = Method("ours", "auto", per_tensor=True, weight_bits=4)
    scores_of(bench.row(case, method))
    assert runs(tmp_path, method) == ["auto per-tensor 4"]


@pytest.mark.parametrize(("method", "says"), [("fails", "cannot be calibrated"), ("nothing", "it wrote no model")])
def test_a_failure_is_a_row_that_says_why_and_is_tried_again(
    tmp_path: Path, case: Case, bench: Bench, method: str, says: str
) -> None:
    for attempt in (1, 2):
        row = bench.row(case, Method("ours", method))
        assert row.failed
        assert isinstance(row.scores, Why) and row.scores.short == "failed" and says in row.scores.reason
        assert len(runs(tmp_path, Method("ours", method))) == attempt


def test_a_limit_is_a_row_of_its_own_and_only_a_higher_one_is_tried(tmp_path: Path, case: Case, bench: Bench) -> None:
    hungry = Method("ours", "hungry")
    for limit, attempts in ((200, 1), (200, 1), (150, 1), (250, 2)):
        row = bench_in(tmp_path, Limits(600, limit)).row(case, hungry)
        assert isinstance(row.scores, Why) and row.scores.short == "out of memory"
        assert not row.failed
        assert len(runs(tmp_path, hungry)) == attempts


def test_a_peer_that_cannot_be_installed_is_a_row_that_says_so(tmp_path: Path, case: Case, bench: Bench) -> None:
    row = bench.row(case, Method("modelopt", "max"))
    assert row.scores == Why("not installed", "its environment could not be set up: no space left")
    assert not row.failed
    with_openvino = bench_in(tmp_path, LIMITS, with_openvino=True).row(case, MIN_MAX)
    assert with_openvino.openvino == row.scores
    scores_of(with_openvino)


def test_what_ctrl_c_ends_is_no_failure_and_leaves_what_was_measured(
    tmp_path: Path, case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.row(case, MIN_MAX)

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quantization_makers, "run_measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.row(case, Method("ours", "mse"))
    assert bench.row(case, MIN_MAX) == first
    assert not (tmp_path / "space" / "tiny" / "ours-mse" / "made.json").exists()


def test_a_method_that_changes_the_model_it_reads_stops_the_run_and_the_users_file_is_untouched(
    tmp_path: Path, case: Case, bench: Bench
) -> None:
    before = sha256_of(tmp_path / "tiny.onnx")
    with pytest.raises(CheckFailed, match="dlv3deploy spoils changed the model it was given to read"):
        bench.row(case, Method("ours", "spoils"))
    assert sha256_of(tmp_path / "tiny.onnx") == before
    assert not (tmp_path / "space" / "tiny" / "ours-spoils" / "made.json").exists()


@pytest.mark.slow
def test_what_is_asked_of_onnx_runtime_is_in_its_graph(tmp_path: Path, case: Case, bench: Bench) -> None:
    """Which biases have pairs, how many scales weights have, and ranges that portions of the images change."""

    def graph_of(method: Method) -> GraphProto:
        scores_of(bench.row(case, method))
        return onnx.load(str(tmp_path / "space" / "tiny" / method.folder / "int8.onnx")).graph

    def scales(graph: GraphProto) -> dict[str, NDArray[Any]]:
        values = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
        return {n.input[0]: values[n.input[1]] for n in graph.node if n.op_type == "DequantizeLinear"}

    plain, float_bias, per_tensor, entropy, by_image = (
        graph_of(method)
        for method in (
            *(Method("ort", "min-max"), Method("ort", "min-max", float_bias=True), Method("ort", "min-max", per_tensor=True)),
            *(Method("ort", "entropy"), Method("ort", "entropy", by_image=True)),
        )
    )
    int32 = [sum(w.data_type == TensorProto.INT32 for w in graph.initializer) for graph in (plain, float_bias)]
    assert int32[0] > int32[1]
    assert max(scale.size for scale in scales(plain).values()) > 1
    assert max(scale.size for scale in scales(per_tensor).values()) == 1
    assert any(not np.array_equal(scale, scales(by_image)[name]) for name, scale in scales(entropy).items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["min-max", "percentile", "entropy"])
def test_onnx_runtimes_quantiser_takes_the_same_images_in_the_same_form(case: Case, bench: Bench, method: str) -> None:
    row = bench.row(case, Method("ort", method))
    assert scores_of(row).agreement > 0.5
    assert row.int8_share == 1.0
    assert row.structure is not None and row.structure.pairs
