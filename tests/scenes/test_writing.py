"""Data sets and videos on the disk."""

from pathlib import Path

import numpy as np
import pytest

from dlv3deploy.core.datasets import open_dataset
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import read_label
from dlv3deploy.scenes import ROAD_SCENE, Drive, write_dataset, write_labels, write_video
from dlv3deploy.scenes.writing import drive_seeds, frame_times


def test_a_data_set_opens_and_passes_its_check(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=6, val=3, seed=1, size=(48, 80))
    for split, count in (("train", 6), ("val", 3)):
        dataset = open_dataset(tmp_path, split)  # type: ignore[arg-type]  # a text of a loop
        dataset.check()
        assert len(dataset) == count
        assert dataset.classes == ROAD_SCENE
        frame, label = dataset.samples[0].read()
        assert frame.shape == (48, 80, 3) and label.shape == (48, 80)


def test_the_same_seed_writes_the_same_labels(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_dataset(tmp_path / name, train=1, val=1, seed=seed, size=(32, 48))
    first, again, other = (read_label(tmp_path / name / "train" / "labels" / "00000.png") for name in "abc")
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_second_call_replaces_the_first(tmp_path: Path) -> None:
    write_dataset(tmp_path, train=3, val=2, seed=1, size=(32, 48))
    write_dataset(tmp_path, train=1, val=1, seed=2, size=(32, 48))
    assert len(open_dataset(tmp_path, "train")) == len(open_dataset(tmp_path, "val")) == 1


def test_another_data_set_is_left_alone(tmp_path: Path) -> None:
    photo = tmp_path / "train" / "images" / "00001.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"precious")
    with pytest.raises(UserError, match="other than generated scenes"):
        write_dataset(tmp_path, train=1, val=1, seed=0, size=(32, 48))
    assert photo.read_bytes() == b"precious"


@pytest.mark.parametrize("seed", [0, 1, 99])
def test_no_drive_is_in_train_and_val(seed: int) -> None:
    train, val = drive_seeds(seed, "train", 400), drive_seeds(seed, "val", 400)
    assert not set(train) & set(val)
    assert len(set(train)) == 100


def test_a_video_shows_the_drive(tmp_path: Path) -> None:
    import cv2

    drive = Drive(2, 64, 96)
    write_video(tmp_path / "drive.mp4", drive, seconds=0.5, fps=10)
    video = cv2.VideoCapture(str(tmp_path / "drive.mp4"))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    assert len(frames) == 5 and video.get(cv2.CAP_PROP_FPS) == 10
    for frame, time_s in zip(frames, frame_times(0.5, 10), strict=True):
        assert np.abs(frame.astype(float) - drive.at(time_s)[0]).mean() < 12


def test_labels_of_a_video_are_the_drives(tmp_path: Path) -> None:
    drive = Drive(2, 48, 64)
    write_labels(tmp_path / "labels", drive, seconds=0.3, fps=10)
    written = sorted((tmp_path / "labels").iterdir())
    assert [path.name for path in written] == ["000000.png", "000001.png", "000002.png"]
    np.testing.assert_array_equal(read_label(written[2]), drive.at(0.2)[1])


def test_requests_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="both splits"):
        write_dataset(tmp_path, train=0, val=1, seed=0, size=(48, 80))
    with pytest.raises(UserError, match="sides are"):
        write_dataset(tmp_path, train=1, val=1, seed=0, size=(8, 80))
    with pytest.raises(UserError, match="seeds are 0 or more"):
        write_dataset(tmp_path, train=1, val=1, seed=-1, size=(48, 80))
    with pytest.raises(UserError, match="above 0"):
        write_video(tmp_path / "a.mp4", Drive(0, 64, 64), seconds=0, fps=30)
    with pytest.raises(UserError, match="even sides"):
        write_video(tmp_path / "a.mp4", Drive(0, 64, 65), seconds=0.1, fps=10)
    with pytest.raises(UserError, match="end the name"):
        write_video(tmp_path / "a.unknown", Drive(0, 64, 64), seconds=0.1, fps=10)
    assert not list(tmp_path.iterdir())
