"""Trained models of others, rewritten: the masks of real images stay as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dlv3deploy.core.graph import fix_input, load_onnx, simplified
from dlv3deploy.core.images import list_images, read_frame
from dlv3deploy.core.postprocess import mask_from_scores
from dlv3deploy.core.preprocess import Geometry, preprocess
from dlv3deploy.core.spec import InputSpec, OutputSpec
from dlv3deploy.engines.rewrites.rewrite import HEAD, IN_THEIR_ORDER, apply, rewritten

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


def test_masks_of_a_graph_without_its_upsampling_differ_at_most_where_two_logits_tie(shared: Path) -> None:
    """At the input's size; a frame of another size is interpolated once in place of twice, which hardly shows."""
    size, logits = (513, 513), OutputSpec("logits")
    plain = fix_input(simplified(load_onnx(shared / "models" / "deeplabv3_mnv2_voc_513.onnx")), (1, 3, *size))
    done = apply(plain, (HEAD,), logits)
    assert done.output == OutputSpec("scores", "align-corners")
    on_cpu = {"providers": ["CPUExecutionProvider"]}
    sessions = [onnxruntime.InferenceSession(model.SerializeToString(), **on_cpu) for model in (plain, done.model)]
    pictures = list_images(shared / "data" / "voc" / "images")
    for path in pictures[:: len(pictures) // IMAGES][:IMAGES]:
        frame = read_frame(path)
        batch, geometry = preprocess(frame, InputSpec(*size, mean=GREY, std=GREY))
        wanted, found = (session.run(None, {session.get_inputs()[0].name: batch})[0][0] for session in sessions)
        assert wanted.size > 200 * found.size
        mask = mask_from_scores(found, Geometry(size, size, (1.0, 1.0), (0.0, 0.0)), done.output)
        second, first = np.partition(wanted, -2, axis=0)[-2:]
        tie = first - second <= 1e-5 * np.abs(wanted).max()
        assert np.array_equal(mask[~tie], wanted.argmax(0)[~tie])
        assert tie.mean() < 0.001
        larger = geometry.to_size(2 * frame.shape[0], 2 * frame.shape[1])
        apart = mask_from_scores(found, larger, done.output) != mask_from_scores(wanted, larger, logits)
        assert apart.mean() < 1e-4
