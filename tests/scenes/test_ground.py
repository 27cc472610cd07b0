"""The ground's ids against a scalar calculation: points of the world, projected forwards, meet the class that they lie on."""

import numpy as np
import pytest

from dlv3deploy.scenes.canvas import Canvas
from dlv3deploy.scenes.classes import MARKING, PAVEMENT, ROAD
from dlv3deploy.scenes.drive import Drive
from dlv3deploy.scenes.ground import paint_ground
from dlv3deploy.scenes.moment import moment_of


def _class_at(drive: Drive, offset: float, z: float) -> int:
    """The rules of the road, written for one spot."""
    road, side = drive.world.road, abs(offset)
    crossing = min(abs(z - (road.first_crossing_m + i * road.crossing_every_m)) for i in range(-2, 10))
    if side >= road.half_m:
        return PAVEMENT
    if crossing < 1.6:
        stripe = (offset + 0.25) % 1.0 < 0.5 and side < road.half_m - 0.4
        return MARKING if stripe else ROAD
    if crossing <= 3.2:
        return ROAD
    period = road.dash_m + road.gap_m
    dashed = road.gap_m == 0 or (z + road.dash_m / 2) % period < road.dash_m
    return MARKING if (side < 0.075 and dashed) or abs(side - road.lane_m) < 0.075 else ROAD


@pytest.mark.parametrize("seed", range(4))
def test_spots_have_the_class_of_the_road_there(seed: int) -> None:
    drive, size = Drive(seed, 240, 480), (240, 480)
    moment, canvas = moment_of(drive.world, 1.0, *size), Canvas.blank(*size)
    world, camera = drive.world, moment.camera
    paint_ground(canvas, camera, world.road, world.look, moment.sunlight, world.grain, np.zeros(size, np.uint8))
    found = expected = 0
    for row in range(round(camera.horizon) + 12, 240, 7):
        for column in range(3, 480, 11):
            depth = camera.focal * camera.y / (row - camera.horizon)
            right = (column - camera.middle) * depth / camera.focal
            x = camera.x + np.cos(camera.yaw) * right + np.sin(camera.yaw) * depth
            z = camera.z - np.sin(camera.yaw) * right + np.cos(camera.yaw) * depth
            found += canvas.label[row, column] == _class_at(drive, x - world.road.centre_at(z), z)
            expected += 1
    assert found >= 0.998 * expected  # float32 may round a spot on an edge to the other side


def test_painted_lines_are_brighter_than_the_asphalt_beside_them() -> None:
    drive = Drive(2, 128, 256)
    frame, label = drive.at(1.0)
    assert frame[label == MARKING].mean() > frame[label == ROAD].mean() + 20
