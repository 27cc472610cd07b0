"""What layers take: of each run by itself, whatever shares a name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import HEIGHT, WIDTH, tiny_spec, write_tiny

from dlv3deploy.engines.open import layer_times
from dlv3deploy.engines.timing import LayerTime, medians


def test_layers_of_one_name_are_one_layer_in_every_run() -> None:
    runs = [[("relu", "Relu", 1.0), ("conv", "Conv", 5.0), ("relu", "Relu", extra)] for extra in (3.0, 4.0, 9.0)]
    assert medians(runs) == [LayerTime("relu", "Relu", 5.0), LayerTime("conv", "Conv", 5.0)]


def test_a_layer_that_did_not_run_took_nothing() -> None:
    assert medians([[("a", "", 1.0)], [("a", "", 1.0), ("b", "", 2.0)], [("a", "", 1.0)]])[1] == LayerTime("b", "", 0.0)


def test_onnx_runtime_reports_every_node_of_every_run(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    batch = np.zeros((1, 3, HEIGHT, WIDTH), np.float32)
    layers = layer_times(write_tiny(tmp_path / "model.onnx"), tiny_spec(), batch, 5)
    assert sum(layer.kind.endswith("Conv") for layer in layers) == 8
    assert sum(layer.ms for layer in layers) > 0 and len({layer.name for layer in layers}) == len(layers)
