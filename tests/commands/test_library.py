"""The package as a library: `dlv3deploy.Segmenter`."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import succeed
from numpy.typing import NDArray
from tiny_models import CLASSES, HEIGHT, WIDTH, tiny_deeplab, tiny_spec

import dlv3deploy
from dlv3deploy.core.errors import StaleArtefact, UserError
from dlv3deploy.core.graph import embed_spec, fix_input
from dlv3deploy.core.segmenter import Segmenter as CoreSegmenter
from dlv3deploy.engines.onnxruntime_engine import OnnxRuntimeEngine

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")


def frame(seed: int, height: int = 90, width: int = 120) -> NDArray[np.uint8]:
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return np.kron(small, np.ones((height // 5, width // 6, 1), np.uint8))


def test_a_model_file_gives_masks_of_frames(work: Path) -> None:
    with dlv3deploy.Segmenter(work / "model.onnx") as segmenter:
        mask = segmenter(frame(0))
        assert mask.shape == (90, 120) and mask.dtype == np.uint8 and mask.max() < CLASSES
        assert segmenter.spec.classes == tiny_spec().classes and "ONNX Runtime" in segmenter.backend
    with OnnxRuntimeEngine.open(work / "model.onnx", tiny_spec()) as engine:
        np.testing.assert_array_equal(mask, CoreSegmenter(engine)(frame(0)))


def test_a_workspace_gives_its_best_engine(work: Path) -> None:
    succeed("build-engine", "--workspace", work, "--backend", "onnxruntime")
    with dlv3deploy.Segmenter(work) as best, dlv3deploy.Segmenter(str(work / "model.fp32.cpu.engine")) as engine:
        np.testing.assert_array_equal(best(frame(1)), engine(frame(1)))


def test_several_frames_of_any_size_go_through_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    infer = OnnxRuntimeEngine.infer
    monkeypatch.setattr(OnnxRuntimeEngine, "infer", lambda engine, batch: (asked.append(len(batch)), infer(engine, batch))[1])
    model = fix_input(tiny_deeplab(), ("n", 3, HEIGHT, WIDTH))
    embed_spec(model, tiny_spec())
    (tmp_path / "several.onnx").write_bytes(model.SerializeToString())
    frames = [frame(0), frame(1, 45, 60), frame(2)]
    with dlv3deploy.Segmenter(tmp_path / "several.onnx") as segmenter:
        together = segmenter.masks(frames)
        assert asked == [3]
        assert [mask.shape for mask in together] == [each.shape[:2] for each in frames]
        for mask, each in zip(together, frames, strict=True):
            assert np.mean(mask != segmenter(each)) < 0.001  # sums in another order may change a tie
        assert segmenter.masks([]) == []


def test_threads_wait_for_each_other(work: Path) -> None:
    with dlv3deploy.Segmenter(work / "model.onnx") as segmenter, ThreadPoolExecutor(8) as threads:
        wanted = [segmenter(frame(seed)) for seed in range(4)]
        found = list(threads.map(segmenter, [frame(seed % 4) for seed in range(40)]))
    for index, mask in enumerate(found):
        np.testing.assert_array_equal(mask, wanted[index % 4])


def test_a_foreign_model_is_described(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(tiny_deeplab().SerializeToString())
    with dlv3deploy.Segmenter(foreign, classes=tiny_spec().classes, mean=(1, 2, 3), std=(4, 5, 6), flip=True) as segmenter:
        assert segmenter.spec.input.mean == (1, 2, 3) and segmenter(frame(0)).shape == (90, 120)


def test_what_is_no_model_or_no_frame_is_refused(work: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for path in (tmp_path / "missing.onnx", tmp_path / "nothing"):
        with pytest.raises(UserError):
            dlv3deploy.Segmenter(path)
    with pytest.raises(UserError, match="this model's input is fixed"):
        dlv3deploy.Segmenter(work / "model.onnx", size=(32, 32))
    succeed("build-engine", "--workspace", work, "--backend", "onnxruntime")
    model = onnx.load(work / "model.onnx")
    model.graph.node[0].name = "renamed"
    (work / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(StaleArtefact):
        dlv3deploy.Segmenter(work / "model.fp32.cpu.engine")
    with dlv3deploy.Segmenter(work / "model.onnx") as segmenter:
        for wrong in (frame(0)[..., 0], frame(0).astype(np.float32), frame(0)[:0], np.zeros((4, 4, 4), np.uint8)):
            with pytest.raises(ValueError, match="a frame is H×W×3 uint8"):
                segmenter(wrong)


def test_importing_the_package_loads_nothing() -> None:
    program = "import sys, dlv3deploy; print(sorted({'numpy', 'onnx', 'cv2', 'typer', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
    with pytest.raises(AttributeError, match="has no attribute 'Segmentor'"):
        _ = dlv3deploy.Segmentor
