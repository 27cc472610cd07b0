"""Shadows of the houses against a walk along the ray, and noise that repeats without a seam."""

import numpy as np
import pytest

from dlv3deploy.scenes.look import look_of
from dlv3deploy.scenes.noise import sample, tileable_noise
from dlv3deploy.scenes.road import road_of
from dlv3deploy.scenes.sunlight import Sunlight


@pytest.mark.parametrize("seed", range(6))
def test_a_spot_is_in_shadow_when_a_walk_towards_the_sun_meets_a_house(seed: int) -> None:
    rng = np.random.default_rng(seed)
    look, road = look_of(rng), road_of(rng)
    row = [(0.0, 12.0, 9.0), (20.0, 33.0, 14.0)]
    sunlight = Sunlight.over(look, road, (-40.0, 80.0), row)
    side = 1.0 if look.sun[0] > 0 else -1.0
    for offset, z in rng.uniform((-5, -10), (5, 45), (60, 2)):
        length = (road.front_m - side * offset) / abs(look.sun[0])
        meets_z, meets_y = z + length * look.sun[2], length * look.sun[1]
        margin = min(abs(meets_z - edge) for edge in (0.0, 12.0, 20.0, 33.0))
        top = next((top for start, end, top in row if start <= meets_z < end), 0.0)
        if margin > 0.6 and abs(meets_y - top) > 0.5:
            assert sunlight.reaching(np.array([offset]), np.array([z]))[0] == (1.0 if meets_y > top else 0.0)


def test_every_hour_has_the_sun_above_the_horizon_and_unit_length() -> None:
    for seed in range(30):
        look = look_of(np.random.default_rng(seed))
        assert look.sun[1] > 0.1 and np.linalg.norm(look.sun) == pytest.approx(1)


def test_noise_repeats_without_a_seam() -> None:
    noise = tileable_noise(np.random.default_rng(0), 64, 1.5)
    inner = np.abs(np.diff(noise, axis=1)).mean()
    assert np.abs(noise[:, 0] - noise[:, -1]).mean() < 1.5 * inner
    assert abs(noise.mean()) < 1e-5 and noise.std() == pytest.approx(1, abs=1e-4)


def test_noise_is_read_beyond_the_tile() -> None:
    noise = tileable_noise(np.random.default_rng(0), 64, 1.5)
    columns, rows = np.array([[5.0, 69.0, -59.0]], np.float32), np.array([[7.0, 7.0, 135.0]], np.float32)
    np.testing.assert_allclose(sample(noise, columns, rows), noise[7, 5], rtol=1e-4)
