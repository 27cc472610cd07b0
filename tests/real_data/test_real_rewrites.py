"""Trained models of others, rewritten: the masks of real images stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlv3deploy.core.graph import fix_input, load_onnx, simplified
from dlv3deploy.core.images import list_images, read_frame
from dlv3deploy.core.preprocess import preprocess
from dlv3deploy.core.spec import InputSpec
from dlv3deploy.engines.rewrites.rewrite import IN_THEIR_ORDER, rewritten

onnxruntime = pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")
pytestmark = pytest.mark.real_data

GREY = (127.5, 127.5, 127.5)
IMAGES = 6


@pytest.mark.parametrize(
    ("name", "folder", "size", "rewrites"),
    [
        ("deeplabv3_mnv2_camvid", "camvid/val/images", (360, 480), {"image-pooling", "regions"}),
        ("deeplabv3_mnv2_voc_513", "voc/images", (513, 513), {"image-pooling"}),
    ],
)
def test_masks_differ_at_most_where_two_scores_tie(
    shared: Path, name: str, folder: str, size: tuple[int, int], rewrites: set[str]
) -> None:
    plain = fix_input(simplified(load_onnx(shared / "models" / f"{name}.onnx")), (1, 3, *size))
    changed, changes = rewritten(plain, list(IN_THEIR_ORDER.values()))
    assert len(changes) == len(rewrites)
    on_cpu = {"providers": ["CPUExecutionProvider"]}
    sessions = [onnxruntime.InferenceSession(model.SerializeToString(), **on_cpu) for model in (plain, changed)]
    spec = InputSpec(*size, mean=GREY, std=GREY)
    pictures = list_images(shared / "data" / folder)
    for path in pictures[:: len(pictures) // IMAGES][:IMAGES]:
        batch, _ = preprocess(read_frame(path), spec)
        wanted, found = (session.run(None, {session.get_inputs()[0].name: batch})[0][0] for session in sessions)
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
        second, first = np.partition(wanted, -2, axis=0)[-2:]
        tie = first - second <= 1e-5 * np.abs(wanted).max()
        assert np.array_equal(found.argmax(0)[~tie], wanted.argmax(0)[~tie])
        assert tie.mean() < 0.001
