"""AdaRound against every choice there is, and the script that compares it with the closed form."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rounding
from numpy.typing import NDArray
from quantization_cases import Request
from tiny_models import write_tiny

from dlv3deploy.calibration import weights
from dlv3deploy.calibration.rounding import output_error, round_to_nearest

pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")

LARGEST, STEP = 7, 0.1


def problem(seed: int, rows: int = 3, length: int = 7) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Weights, steps and the covariance of values that go together, so that rounding to nearest is not best."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((length, length)) + 2 * random.standard_normal((length, 1))
    covariance = (mixed @ mixed.T / length).astype(np.float32)[None]
    return (random.uniform(-0.6, 0.6, (1, rows, length)).astype(np.float32), np.full((1, rows), STEP, np.float32), covariance)


def best_of_all(weight: NDArray[np.float32], covariance: NDArray[np.float32]) -> float:
    """The smallest error of one row over all ways to round every weight down or up."""
    floor = np.floor(weight / STEP)
    deltas = [(floor + np.array(ups)) * STEP - weight for ups in product((0, 1), repeat=weight.size)]
    return min(float(delta @ covariance @ delta) for delta in deltas)


@pytest.mark.parametrize("seed", range(3))
def test_adaround_comes_near_the_best_of_all_choices(seed: int) -> None:
    weight, steps, covariance = problem(seed)
    found = rounding.adaround(weight, steps, covariance, LARGEST, 1500)
    assert np.allclose(found / STEP, np.rint(found / STEP), atol=1e-5)
    assert np.abs(found - weight).max() < STEP
    best = sum(best_of_all(row, covariance[0]) for row in weight[0])
    nearest = output_error(weight, round_to_nearest(weight, steps, LARGEST), covariance).sum()
    reached = output_error(weight, found, covariance).sum()
    assert best - 1e-6 <= reached < best + 0.4 * (nearest - best)


def test_adaround_does_not_depend_on_the_size_of_what_a_layer_reads() -> None:
    weight, steps, covariance = problem(1)
    small, large = (rounding.adaround(weight, steps, covariance * np.float32(by), LARGEST, 400) for by in (1e-4, 1e4))
    assert np.array_equal(small, large)


def test_adaround_stays_on_the_grid_where_weights_are_at_its_end() -> None:
    weight = np.array([[[0.74, -0.76, 0.0]]], np.float32)
    found = rounding.adaround(weight, np.full((1, 1), STEP, np.float32), np.eye(3, dtype=np.float32)[None], LARGEST, 100)
    assert np.abs(found).max() <= LARGEST * STEP + 1e-6


@pytest.mark.slow
def test_the_script_compares_all_three_on_the_same_convolutions(
    tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = Request("tiny", write_tiny(tmp_path / "tiny.onnx"), scenes, scenes / "train" / "images")
    monkeypatch.setattr(rounding, "built_in", lambda _shared: {"tiny": request})
    monkeypatch.setattr(weights, "learned_rounding", weights.learned_rounding)  # put back at the end
    options = ["--shared", str(tmp_path), "--workspace", str(tmp_path / "space"), "--model", "tiny", "--bits", "4"]
    monkeypatch.setattr(sys, "argv", ["rounding.py", *options, "--iterations", "300", "--images", "4", "--every", "3"])
    assert rounding.main() == 0
    text = (tmp_path / "space" / "rounding.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| tiny")]
    assert [row[2] for row in rows] == ["to nearest", "closed form", "AdaRound, 300 iterations", rounding.SEQUENTIAL]
    nearest, closed, by_gradient = (float(row[3]) for row in rows[:3])
    assert closed < nearest and by_gradient < nearest
    counts = [row[4].split(" of ") for row in rows[:3]]
    assert sum(int(count) for count, _ in counts) == int(counts[0][1]) > 3
    assert str(tmp_path) not in text
    monkeypatch.setattr(sys, "argv", ["rounding.py", *options[:4], "--model", "huge"])
    assert rounding.main() == 1
    assert "--model huge: is no built-in model" in capsys.readouterr().err
