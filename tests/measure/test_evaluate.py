"""Scoring an engine on labelled images, with stand-in engines whose scores are known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core.stand_ins import StandInEngine, spec_with

from dlv3deploy.core.classes import Classes, palette_for
from dlv3deploy.core.datasets import Sample
from dlv3deploy.core.engine import Batch, Outputs
from dlv3deploy.core.errors import UserError
from dlv3deploy.core.images import Mask, write_frame, write_mask
from dlv3deploy.core.segmenter import Segmenter
from dlv3deploy.measure.evaluate import evaluate

pytest.importorskip("cv2")

IGNORED = 11
CLASSES = Classes(("dark", "middle", "bright"), palette_for(3), IGNORED)
GREY = np.array([0, 128, 255], np.uint8)  # of the three classes
SIZE = (48, 64)


def truth(seed: int, height: int = 48, width: int = 64) -> Mask:
    """Blocks of 8×8 pixels."""
    blocks = np.random.default_rng(seed).integers(0, 3, (height // 8, width // 8))
    return np.kron(blocks, np.ones((8, 8), int)).astype(np.uint8)


def sample(folder: Path, name: str, classes: Mask, label: Mask | None = None) -> Sample:
    """An image whose grey values show `classes`, with `label` or these very classes as its label."""
    image, path = folder / "images" / f"{name}.png", folder / "labels" / f"{name}.png"
    write_frame(image, np.repeat(GREY[classes][:, :, None], 3, axis=2))
    write_mask(path, classes if label is None else label, CLASSES)
    return Sample(image, path)


def reader(shift: int = 0) -> Segmenter:
    """Reads the classes from the grey values, each named `shift` classes further on."""

    def answer(batch: Batch) -> Outputs:
        distance = np.abs(batch.mean(axis=1)[:, None] - GREY[:, None, None].astype(np.float32))
        return np.roll(-distance, shift, axis=1).astype(np.float32)

    return Segmenter(StandInEngine(spec_with(CLASSES, *SIZE, "logits"), answer, SIZE))


def test_an_engine_that_knows_the_labels_scores_one(tmp_path: Path) -> None:
    scores = evaluate(reader(), [sample(tmp_path, f"{i}", truth(i)) for i in range(3)])
    assert (scores.miou, scores.pixel_accuracy, scores.images) == (1, 1, 3)
    assert scores.per_class_iou == {"dark": 1, "middle": 1, "bright": 1}


def test_an_engine_that_is_always_wrong_scores_zero(tmp_path: Path) -> None:
    scores = evaluate(reader(shift=1), [sample(tmp_path, "a", truth(0))])
    assert (scores.miou, scores.pixel_accuracy) == (0, 0)


def test_wrong_labels_cost_what_they_are(tmp_path: Path) -> None:
    seen = np.zeros(SIZE, np.uint8)
    label = seen.copy()
    label[:12] = 2  # a quarter of the image
    label[12:24] = IGNORED
    scores = evaluate(reader(), [sample(tmp_path, "a", seen, label)])
    assert scores.pixel_accuracy == pytest.approx(24 / 36)
    assert scores.per_class_iou == {"dark": pytest.approx(24 / 36), "middle": None, "bright": 0}


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_label_of_another_size_is_scored_at_its_own_size(tmp_path: Path, factor: int) -> None:
    seen = truth(0)
    enlarged = np.kron(seen, np.ones((factor, factor), np.uint8))
    scores = evaluate(reader(), [sample(tmp_path, "a", seen, enlarged)])
    # Interpolated borders between blocks lie where an enlarged label has them, but for a class between the two.
    assert scores.pixel_accuracy > (0.999 if factor == 1 else 0.9)
    smaller = evaluate(reader(), [sample(tmp_path, "b", seen, seen[4::8, 4::8])])
    assert smaller.pixel_accuracy == 1


def test_a_label_that_is_turned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="turn one of them"):
        evaluate(reader(), [sample(tmp_path, "a", truth(0), truth(0).T)])


def test_without_samples_there_is_nothing_to_score() -> None:
    with pytest.raises(UserError, match="no labelled image: there is nothing to score"):
        evaluate(reader(), [])


def test_labels_that_are_ignored_everywhere_are_no_score_of_zero(tmp_path: Path) -> None:
    ignored = np.full(SIZE, IGNORED, np.uint8)
    with pytest.raises(UserError, match=r"2 labelled images: every pixel is ignored \(11\)"):
        evaluate(reader(), [sample(tmp_path, name, truth(0), ignored) for name in "ab"])


def test_a_label_id_that_the_model_does_not_know_is_refused_by_the_files_name(tmp_path: Path) -> None:
    label = truth(0)
    label[0, 0] = 3
    with pytest.raises(UserError, match=r"labels/b\.png holds label id 3"):
        evaluate(reader(), [sample(tmp_path, "a", truth(0)), sample(tmp_path, "b", truth(0), label)])


@pytest.mark.parametrize("which", ["image", "label"])
def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path, which: str) -> None:
    one = sample(tmp_path, "a", truth(0))
    path: Path = getattr(one, which)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=rf"{which}s/a\.png"):
        evaluate(reader(), [one])
