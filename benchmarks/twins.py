"""Twins: networks that compute the function of another one with channels of other sizes, which is hard for INT8.

Every group of channels that may have a common factor (`calibration/channels.py`) is multiplied by one, and the weights that
read it are divided by it. Training leaves such factors to chance, and one scale for a whole tensor depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlv3deploy.calibration.channels import channel_groups
from dlv3deploy.calibration.collect import Runner
from dlv3deploy.calibration.equalise import equalised
from dlv3deploy.calibration.network import Network
from dlv3deploy.core.errors import CheckFailed

if TYPE_CHECKING:
    from onnx import ModelProto

MOST_RELATIVE_ERROR = 1e-4  # of the largest score


@dataclass(frozen=True)
class Twin:
    """Factors from 1/`factor` to `factor`, their logarithms uniform, by the random `seed`."""

    seed: int
    factor: float


def twin_of(model: ModelProto, height: int, width: int, twin: Twin) -> ModelProto:
    """The same function for inputs 1×3×height×width. Raises CheckFailed when scores differ by more than MOST_RELATIVE_ERROR."""
    network = Network.prepared(model, height, width)
    groups, random = channel_groups(network), np.random.default_rng(twin.seed)
    exponents = random.uniform(-1, 1, len(groups.free))
    found = equalised(network, groups, np.where(groups.free, np.float64(twin.factor) ** exponents, 1.0)).model
    image = random.uniform(-1, 1, network.shapes[network.input]).astype(np.float32)
    wanted = _scores(network.model, image)
    error = float(np.abs(_scores(found, image) - wanted).max() / np.abs(wanted).max())
    if not error <= MOST_RELATIVE_ERROR:
        raise CheckFailed(
            f"the twin of seed {twin.seed} and factor {twin.factor:g} differs by {error:.1e} of the largest score"
        )
    return found


def _scores(model: ModelProto, image: NDArray[np.float32]) -> NDArray[np.float32]:
    name = model.graph.output[0].name
    with Runner(model, [name]) as runner:
        found: NDArray[np.float32] = runner(image)[name]
    return found
