"""Which pictures are calibrated on. Covering radii are measured in a space of the tests' own: Pillow's small RGB pictures."""

from __future__ import annotations

import weakref
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from dlv3deploy.calibration import choose as module
from dlv3deploy.calibration.choose import choose, evenly, farthest_first
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import list_images, read_frame, write_frame

cv2 = pytest.importorskip("cv2")

RARE = ("night", "tunnel", "fog", "glare")


def small_pictures(paths: list[Path]) -> np.ndarray:
    """Each picture as 12×12 RGB, 0 to 1: n×432."""
    return np.array(
        [np.asarray(Image.open(p).convert("RGB").resize((12, 12), Image.Resampling.BOX)) / 255 for p in paths]
    ).reshape(len(paths), -1)


def covering_radius(points: np.ndarray, chosen: list[int]) -> float:
    return max(min(float(np.linalg.norm(point - points[c])) for c in chosen) for point in points)


def radius_of_a_lucky_draw(points: np.ndarray, count: int) -> float:
    """What one random choice in ten reaches."""
    pick = np.random.default_rng(0)
    draws = [covering_radius(points, list(pick.choice(len(points), count, replace=False))) for _ in range(50)]
    return float(np.percentile(draws, 10))


@pytest.fixture(scope="module")
def street(scenes: Path) -> list[Path]:
    return list_images(scenes / "train" / "images")


@pytest.fixture(scope="module")
def drive(street: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """120 pictures of ordinary driving, the street's moved a little, with four rare moments of two pictures each."""
    folder = tmp_path_factory.mktemp("drive")
    frames = [read_frame(path) for path in street]
    for i in range(120):
        write_frame(folder / f"{i:03d}.png", np.roll(frames[i % 24], 3 * (i // 24), axis=1))
    for i in (37, 38):
        day = frames[i % 24].astype(np.float32)
        moments = day * 0.12, np.where(day > 170, day, day * 0.2), 170 + day * 0.25, 3 * day
        for name, moment in zip(RARE, moments, strict=True):
            write_frame(folder / f"{i:03d}_{name}.png", np.clip(moment, 0, 255).astype(np.uint8))
    return list_images(folder)


def test_spread_finds_every_rare_moment_of_a_drive(drive: list[Path]) -> None:
    names = " ".join(path.stem for path in choose(drive, 12, "spread").images)
    assert all(moment in names for moment in RARE)


def test_spread_covers_a_drive_better_than_chance_and_than_equal_distances(drive: list[Path]) -> None:
    points = small_pictures(drive)
    spread, even = (
        covering_radius(points, [drive.index(p) for p in choose(drive, 12, rule).images]) for rule in ("spread", "even")
    )
    assert spread < radius_of_a_lucky_draw(points, 12)
    assert spread < even


@pytest.mark.real_data
def test_spread_covers_camvid_better_than_chance(shared: Path) -> None:
    images = list_images(shared / "data" / "camvid" / "train" / "images")[::2]
    points = small_pictures(images)
    chosen = choose(images, 24, "spread")
    assert not chosen.blank
    assert not chosen.duplicates
    assert covering_radius(points, [images.index(p) for p in chosen.images]) < radius_of_a_lucky_draw(points, 24)


@settings(deadline=None, max_examples=200)
@given(
    points=arrays(np.float32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7), elements=st.integers(-9, 9)),
    count=st.integers(1, 9),
)
def test_farthest_first_is_at_most_twice_the_best_radius_and_always_takes_the_farthest(points: np.ndarray, count: int) -> None:
    picks = farthest_first(points, count)
    assert len(set(picks)) == len(picks) == min(count, len(points))
    best = min(covering_radius(points, list(c)) for c in combinations(range(len(points)), len(picks)))
    assert covering_radius(points, picks) <= 2 * best + 1e-5
    for i in range(1, len(picks)):
        distance = [min(float(np.linalg.norm(point - points[c])) for c in picks[:i]) for point in points]
        assert distance[picks[i]] == pytest.approx(max(distance), abs=1e-5)
    assert farthest_first(points, max(1, count - 1)) == picks[: max(1, min(count - 1, len(points)))]


@settings(deadline=None, max_examples=15)
@given(data=st.data(), rule=st.sampled_from(["spread", "random", "even"]), count=st.integers(1, 12))
def test_neither_order_nor_repetition_of_paths_matters(street, data: st.DataObject, rule, count: int) -> None:
    some = street[:10]
    given_ = data.draw(st.permutations(some)) + data.draw(st.lists(st.sampled_from(some)))
    assert choose(given_, count, rule) == choose(some, count, rule)


@given(length=st.integers(0, 3000), count=st.integers(1, 3000))
def test_equal_distances_reach_both_ends_and_repeat_nothing(length: int, count: int) -> None:
    indices = evenly(length, count)
    assert len(indices) == min(length, count)
    assert indices == sorted(set(indices))
    if length and count > 1:
        assert (indices[0], indices[-1]) == (0, length - 1)
        steps = np.diff(indices)
        assert not len(steps) or steps.max() - steps.min() <= 1 + (length > count)


def test_even_takes_equal_distances_over_the_sorted_names(street: list[Path]) -> None:
    assert choose(street[:21], 3, "even").images == (street[0], street[10], street[20])


def test_random_follows_its_seed(street: list[Path]) -> None:
    assert choose(street, 6, "random", seed=3) == choose(street, 6, "random", seed=3)
    assert len({choose(street[:12], 6, "random", seed).images for seed in range(5)}) > 1


@pytest.mark.parametrize("rule", ["spread", "random", "even"])
def test_fewer_pictures_than_asked_for_are_all_taken_in_order(street: list[Path], rule) -> None:
    assert choose(street[2::-1], 100, rule).images == tuple(street[:3])
    assert choose(street[:1], 100, rule).images == (street[0],)


@pytest.mark.parametrize("rule", ["spread", "random", "even"])
def test_pictures_without_content_are_left_out_and_named(street: list[Path], tmp_path: Path, rule) -> None:
    noise = np.random.default_rng(0)
    shape = (480, 640, 3)
    blanks = {
        "black": np.zeros(shape),
        "blue": np.full(shape, (200, 60, 10)),
        "cap": noise.normal(4, 6, shape),
        "cap_bright": noise.normal(60, 15, shape),
        "white": np.full(shape, 255),
    }
    for name, values in blanks.items():
        write_frame(tmp_path / f"{name}.png", np.clip(values, 0, 255).astype(np.uint8))
    left_out = list_images(tmp_path)
    chosen = choose([*left_out, *street[:4]], 100, rule)
    assert chosen.blank == tuple(left_out)
    assert chosen.images == tuple(street[:4])


def test_a_night_with_one_lamp_has_content(tmp_path: Path) -> None:
    night = np.zeros((120, 160, 3), np.uint8)
    cv2.circle(night, (50, 40), 4, (180, 220, 255), -1)
    write_frame(tmp_path / "night.png", night)
    assert choose(list_images(tmp_path), 1, "spread").blank == ()


@pytest.mark.parametrize("rule", ["spread", "random", "even"])
def test_the_same_picture_again_is_left_out_however_it_is_stored(street: list[Path], tmp_path: Path, rule) -> None:
    frame = cv2.resize(read_frame(street[0]), (480, 320), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(frame + np.random.default_rng(0).normal(0, 8, frame.shape), 0, 255).astype(np.uint8)
    original = tmp_path / "a.png"
    write_frame(original, frame)
    (tmp_path / "b_copy.png").write_bytes(original.read_bytes())
    cv2.imwrite(str(tmp_path / "c_recompressed.jpg"), frame, [cv2.IMWRITE_JPEG_QUALITY, 50])
    write_frame(tmp_path / "d_half.png", cv2.resize(frame, None, fx=0.5, fy=0.5))
    write_frame(tmp_path / "e_noisy.png", noisy)
    chosen = choose([*list_images(tmp_path)[::-1], street[5]], 100, rule)
    assert chosen.duplicates == tuple((path, original) for path in list_images(tmp_path)[1:])
    assert set(chosen.images) == {original, street[5]}


def test_one_person_far_away_makes_it_another_picture(street: list[Path], tmp_path: Path) -> None:
    """What the mean difference of a whole picture would pass over."""
    frame = cv2.resize(read_frame(street[0]), (480, 320), interpolation=cv2.INTER_CUBIC)
    write_frame(tmp_path / "empty.png", frame)
    cv2.rectangle(frame, (200, 180), (212, 212), (30, 30, 200), -1)  # a quarter of a per cent of the picture
    write_frame(tmp_path / "person.png", frame)
    assert choose(list_images(tmp_path), 100, "spread").duplicates == ()


def test_a_scene_that_changes_slowly_is_sampled_not_lost(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 100, 160), (120, 1))[..., None].repeat(3, axis=2)
    for i in range(50):
        write_frame(tmp_path / f"{i:02d}.png", (ramp + 3 * i).astype(np.uint8))
    chosen = choose(list_images(tmp_path), 100, "spread")
    assert chosen.images[0].stem == "00"
    assert int(chosen.images[-1].stem) > 40
    assert 10 < len(chosen.images) < 50
    assert all(copy.stem > kept.stem and kept in chosen.images for copy, kept in chosen.duplicates)


def test_every_picture_is_accounted_for(drive: list[Path]) -> None:
    chosen = choose(drive, 1000, "spread")
    apart = {*chosen.images}, {*chosen.blank}, {copy for copy, _ in chosen.duplicates}
    assert sum(map(len, apart)) == len(drive)
    assert set.union(*apart) == set(drive)


def test_of_very_many_pictures_an_even_selection_is_read(street: list[Path], monkeypatch) -> None:
    read = []
    monkeypatch.setattr(module, "MOST_EXAMINED", 8)
    monkeypatch.setattr(module, "read_frame", lambda path: read.append(path) or read_frame(path))
    chosen = choose(street, 3, "spread")
    assert read == [street[i] for i in (0, 3, 7, 10, 13, 16, 20, 23)]
    assert chosen.not_examined == 16
    assert choose(street, 12, "spread").not_examined == 12


def test_memory_does_not_hold_the_pictures(street: list[Path], monkeypatch) -> None:
    frames: list[weakref.ref] = []
    most_alive = 0

    def watched(path: Path) -> np.ndarray:
        nonlocal most_alive
        most_alive = max(most_alive, sum(frame() is not None for frame in frames))
        frame = read_frame(path)
        frames.append(weakref.ref(frame))
        return frame

    monkeypatch.setattr(module, "read_frame", watched)
    choose(street, 5, "spread")
    assert len(frames) == len(street)
    assert most_alive <= 1


@pytest.mark.parametrize("rule", ["spread", "random", "even"])
def test_an_unreadable_picture_is_named(street: list[Path], tmp_path: Path, rule) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(street[0].read_bytes()[:300])
    with pytest.raises(UserError, match=r"torn\.png.*cut short"):
        choose([*street[:3], torn], 2, rule)
    with pytest.raises(UserError, match=r"gone\.png.*cannot be read"):
        choose([tmp_path / "gone.png"], 2, rule)


def test_no_picture_only_blank_ones_a_bad_count_and_a_bad_rule_are_refused(street: list[Path], tmp_path: Path) -> None:
    write_frame(tmp_path / "black.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="no calibration image"):
        choose([], 5, "spread")
    with pytest.raises(UserError, match=r"1 calibration image, .*black\.png.*single colour"):
        choose([tmp_path / "black.png"], 5, "spread")
    with pytest.raises(UserError, match="at least one"):
        choose(street, 0, "spread")
    with pytest.raises(UserError, match="spread, random, even"):
        choose(street, 5, "nearest")  # type: ignore[arg-type]  # on purpose
