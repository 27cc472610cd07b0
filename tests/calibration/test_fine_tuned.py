"""What a calibration becomes when its model is fine-tuned: ranges that follow the steps, and a cache with its first line."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from dlv3deploy.calibration.fine_tuned import tuned_ranges
from dlv3deploy.calibration.grid import Range
from dlv3deploy.calibration.trt_cache import read_cache, rewrite_cache, write_cache
from dlv3deploy.core.errors import UserError

RANGES = {"a": Range(-1.0, 2.54), "joined": Range(-1.0, 2.54), "b": Range(-5.08, 0.0), "dead": Range(0.0, 0.0)}
JOINS = helper.make_graph([helper.make_node("Concat", ["a/dequantized", "late"], ["joined"], axis=1)], "joins", [], [])


def test_ranges_are_stretched_to_the_new_steps() -> None:
    found = tuned_ranges(JOINS, RANGES, {"a": 0.04, "b": 0.02, "dead": 0.5})
    assert {name: found[name].step() for name in ("a", "b", "dead")} == pytest.approx({"a": 0.04, "b": 0.02, "dead": 0.5})
    assert found["a"].low / found["a"].high == pytest.approx(-1 / 2.54)


def test_a_tensor_without_a_pair_follows_those_it_shares_its_scale_with() -> None:
    """Not those whose range was the same by chance, as behind every ReLU6."""
    ranges = {**RANGES, "late": Range(-1.0, 2.54), "apart": Range(-1.0, 2.54)}
    found = tuned_ranges(JOINS, ranges, {"a": 0.04, "apart": 0.08})
    assert found["joined"] == found["late"] == found["a"] != RANGES["a"]
    assert found["apart"].step() == pytest.approx(0.08)
    assert found["b"] == RANGES["b"]


def test_a_cache_gets_other_scales_under_its_first_line(tmp_path: Path) -> None:
    cache = tmp_path / "model.cache"
    write_cache(cache, {"a": 0.5, "b: c": 0.25}, "MinMaxCalibration", "8.6.1")
    rewrite_cache(cache, {"a": 0.125})
    found = read_cache(cache)
    assert (found.version, found.calibrator, found.scales) == ("8601", "MinMaxCalibration", {"a": 0.125})
    before = cache.read_bytes()
    with pytest.raises(UserError, match="a scale is a positive float32"):
        rewrite_cache(cache, {"a": 0.0})
    assert cache.read_bytes() == before
