"""One seed and one time are one picture, and the label says what the picture shows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlv3deploy.core.errors import UserError
from dlv3deploy.scenes import ROAD_SCENE, Drive
from dlv3deploy.scenes.classes import BUILDING, CAR, PAVEMENT, ROAD, SKY, TREE
from dlv3deploy.scenes.moment import moment_of

HEIGHT, WIDTH = 96, 160


def test_seed_and_time_decide_every_pixel() -> None:
    first, again = Drive(3, HEIGHT, WIDTH), Drive(3, HEIGHT, WIDTH)
    again.at(1.0)  # what was painted before has no influence
    for mine, other in zip(first.at(4.5), again.at(4.5), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_other_seeds_and_other_times_give_other_pictures() -> None:
    label = Drive(3, HEIGHT, WIDTH).at(4.5)[1]
    assert (Drive(4, HEIGHT, WIDTH).at(4.5)[1] != label).mean() > 0.1
    assert (Drive(3, HEIGHT, WIDTH).at(6.5)[1] != label).mean() > 0.05


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**62), height=st.integers(32, 110), width=st.integers(32, 110), time_s=st.floats(0, 7200))
def test_any_size_seed_and_time_gives_a_whole_scene(seed: int, height: int, width: int, time_s: float) -> None:
    frame, label = Drive(seed, height, width).at(time_s)
    assert frame.shape == (height, width, 3) and frame.dtype == np.uint8
    assert label.shape == (height, width) and label.dtype == np.uint8
    assert label.max() < len(ROAD_SCENE)
    assert frame.std() > 10  # not one flat colour


def test_every_class_occurs_in_a_few_drives() -> None:
    counts = sum(np.bincount(Drive(seed, HEIGHT, WIDTH).at(3.0)[1].ravel(), minlength=8) for seed in range(6))
    shares = dict(zip(ROAD_SCENE.names, counts / counts.sum(), strict=True))
    assert all(share > 0.002 for share in shares.values()), shares


def test_one_seed_is_one_street_at_every_size() -> None:
    small, large = Drive(8, 64, 128).at(2.0)[1], Drive(8, 192, 384).at(2.0)[1]
    assert (small == large[1::3, 1::3]).mean() > 0.93


def test_consecutive_frames_change_little() -> None:
    drive = Drive(11, HEIGHT, WIDTH)
    labels = [drive.at(2 + i / 30)[1] for i in range(4)]
    for before, after in pairwise(labels):
        assert 0 < (before != after).mean() < 0.05


def test_classes_look_different_in_the_frame() -> None:
    colours: dict[int, list[np.ndarray]] = {class_id: [] for class_id in (SKY, ROAD, TREE, BUILDING)}
    for seed in range(8):
        frame, label = Drive(seed, HEIGHT, WIDTH).at(1.0)
        for class_id, found in colours.items():
            found.append(frame[label == class_id].astype(float))
    sky, road, tree, _ = (np.concatenate(found) for found in colours.values())
    assert sky.mean() > road.mean() + 30
    spread = {name: pixels.max(axis=1).mean() - pixels.min(axis=1).mean() for name, pixels in (("road", road), ("tree", tree))}
    assert spread["tree"] > 2 * spread["road"]  # leaves have a colour, asphalt is grey


def test_the_frame_has_edges_where_the_label_has() -> None:
    on_border, elsewhere = [], []
    for seed in range(5):
        frame, label = Drive(seed, HEIGHT, WIDTH).at(1.0)
        step = np.abs(np.diff(frame.astype(float), axis=1)).mean(axis=2)
        border = label[:, 1:] != label[:, :-1]
        on_border.append(step[border].mean())
        elsewhere.append(step[~border].mean())
    assert np.mean(on_border) > 2.5 * np.mean(elsewhere)


def test_frame_and_label_move_together() -> None:
    drive = Drive(11, HEIGHT, WIDTH)
    (frame, label), (later_frame, later_label) = drive.at(2.0), drive.at(2.1)
    change = np.abs(frame.astype(float) - later_frame).mean(axis=2)
    moved = label != later_label
    assert change[moved].mean() > 2 * change[~moved].mean()


def _parked_car_run(drive: Drive, time_s: float, place: float) -> tuple[float, int]:
    """Column (from the middle of the image) and height in rows of the car label where one parked car is expected."""
    moment = moment_of(drive.world, time_s, drive.height, drive.width)
    (car,) = [car for car in moment.cars if car.z == place]
    x = drive.world.road.centre_at(car.z) + car.offset
    spot = moment.camera.to_image(moment.camera.to_camera(((x, 0.7, car.z),)))[0]
    column, row = (round(float(n)) for n in spot)
    is_car = drive.at(time_s)[1][:, column] == CAR
    assert is_car[row], "the label is where geometry says that the car is"
    above, below = row, row
    while above > 0 and is_car[above - 1]:
        above -= 1
    while below + 1 < drive.height and is_car[below + 1]:
        below += 1
    return abs(column - moment.camera.middle), below - above + 1


def test_a_parked_car_grows_and_moves_outwards_as_the_camera_comes_near() -> None:
    drive = Drive(9, 128, 256)
    here = moment_of(drive.world, 0.0, 128, 256)
    place = min(car.z for car in here.cars if 14 < car.z - here.camera.z < 24 and car.offset < 0 and car.lights == 0)
    columns, heights = zip(*(_parked_car_run(drive, time_s, place) for time_s in (0.0, 0.4, 0.8)), strict=True)
    assert columns[0] < columns[1] < columns[2]
    assert heights[0] < heights[1] < heights[2]


@pytest.mark.parametrize(("seed", "height", "width"), [(-1, 64, 64), (0, 16, 64), (0, 64, 5000)])
def test_seeds_and_sizes_out_of_range_are_refused(seed: int, height: int, width: int) -> None:
    with pytest.raises(UserError):
        Drive(seed, height, width)


@pytest.mark.parametrize("time_s", [-0.1, float("nan"), 1e9])
def test_times_out_of_range_are_refused(time_s: float) -> None:
    with pytest.raises(UserError, match="drive lasts"):
        Drive(0, 64, 64).at(time_s)


def test_the_ground_is_road_in_front_and_pavement_at_the_side() -> None:
    for seed in range(4):
        drive = Drive(seed, HEIGHT, WIDTH)
        label = drive.at(0.0)[1]
        assert (label[-1, WIDTH // 2 - 5 : WIDTH // 2 + 5] >= ROAD).all()
        assert (label[-1] != SKY).all() and (label[0] != PAVEMENT).all()
