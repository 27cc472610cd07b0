"""Moments of patches against im2col by loops and NumPy's own mean and covariance."""

from __future__ import annotations

import numpy as np
import pytest
from calibration_graphs import Map, conv_of, patches_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlv3deploy.calibration import patches as module
from dlv3deploy.calibration.network import Conv
from dlv3deploy.calibration.patches import PatchMean, PatchMoments, blocks_of, from_blocks, positions_of, to_blocks
from dlv3deploy.calibration.rounding import learned_rounding

CASES = {
    "dense": (conv_of((7, 9)), (5, 4, 3, 3)),
    "pointwise": (conv_of((6, 5), kernel=1), (3, 4, 1, 1)),
    "depthwise": (conv_of((7, 9), groups=4), (4, 1, 3, 3)),
    "grouped": (conv_of((6, 8), groups=2), (6, 2, 3, 3)),
    "strided": (conv_of((9, 8), stride=2), (5, 4, 3, 3)),
    "atrous": (conv_of((7, 9), rate=2), (5, 4, 3, 3)),
    "mostly padding": (conv_of((5, 6), rate=4), (5, 4, 3, 3)),
    "all taps but the middle outside": (conv_of((5, 6), rate=9), (5, 4, 3, 3)),
    "uneven padding": (conv_of((6, 7), pads=(0, 1, 2, 0)), (5, 4, 3, 3)),
    "strided, atrous, depthwise": (conv_of((11, 10), rate=3, stride=2, groups=4), (8, 1, 3, 3)),
}


def images(conv: Conv, weight: Map, count: int = 3, seed: int = 0) -> Map:
    channels = conv.groups * weight.shape[1]
    return np.random.default_rng(seed).normal(0.5, 2, (count, channels, conv.rows.size, conv.columns.size)).astype(np.float32)


def rows_of(conv: Conv, weight: Map, values: Map) -> list[np.ndarray]:
    """For each group, all patches of all images as positions × (in/groups · k²)."""
    whole = np.concatenate([patches_of(image, conv) for image in values])
    return [part.reshape(len(whole), -1) for part in np.split(whole, conv.groups, axis=1)]


@pytest.mark.parametrize("name", CASES)
def test_mean_and_covariance_are_those_of_all_patches(name: str) -> None:
    conv, shape = CASES[name]
    weight = np.zeros(shape, np.float32)
    values = images(conv, weight)
    moments = PatchMoments(conv, weight)
    moments.collect(values)
    found, groups = moments.compute(), rows_of(conv, weight, values)
    assert found.count == 3 * conv.rows.outputs * conv.columns.outputs
    np.testing.assert_allclose(found.mean, [rows.mean(axis=0) for rows in groups], atol=1e-5)
    wanted = [np.atleast_2d(np.cov(rows, rowvar=False, bias=True)) for rows in groups]
    np.testing.assert_allclose(found.covariance, wanted, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in CASES if "wise" not in name and name != "grouped"])
def test_long_patches_have_a_covariance_for_each_tap(name: str, monkeypatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 35)
    conv, shape = CASES[name]
    weight = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    values = images(conv, weight)
    moments = PatchMoments(conv, weight)
    moments.collect(values)
    found = moments.compute()
    patches = np.concatenate([patches_of(image, conv) for image in values])
    for tap in range(9):
        rows = patches[:, :, tap // 3, tap % 3]
        np.testing.assert_allclose(found.mean[tap], rows.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(found.covariance[tap], np.cov(rows, rowvar=False, bias=True), atol=1e-4)
        np.testing.assert_array_equal(to_blocks(weight, conv)[tap], weight[:, :, tap // 3, tap % 3])
    np.testing.assert_array_equal(from_blocks(to_blocks(weight, conv), weight, conv), weight)


@pytest.mark.parametrize("name", CASES)
def test_a_row_of_weights_times_a_patch_is_an_output(name: str) -> None:
    """So blocks, rows and columns mean the same for weights and for moments."""
    conv, shape = CASES[name]
    weight = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    values = images(conv, weight, 1)
    groups, blocks = rows_of(conv, weight, values), to_blocks(weight, conv)
    assert blocks.shape == blocks_of(weight, conv)
    outputs = np.concatenate([block @ rows.T for block, rows in zip(blocks, groups, strict=True)])
    per_group, inner = len(weight) // conv.groups, weight.shape[1]
    for o, row in enumerate(outputs):
        first = o // per_group * inner
        wanted = (patches_of(values[0], conv)[:, first : first + inner] * weight[o]).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(row, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(from_blocks(blocks, weight, conv), weight)


@settings(deadline=None, max_examples=30)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kernel=st.integers(1, 3),
    rate=st.integers(1, 4),
    stride=st.integers(1, 3),
    pads=st.lists(st.integers(0, 4), min_size=4, max_size=4),
)
def test_the_mean_patch_is_the_mean_over_every_position(size, kernel, rate, stride, pads) -> None:
    conv = conv_of(size, kernel, rate, stride, pads)
    assume(conv.rows.outputs and conv.columns.outputs)
    values = images(conv, np.zeros((1, 2, kernel, kernel)), 2)
    observer = PatchMean(conv)
    observer.collect(values)
    wanted = np.concatenate([patches_of(image, conv) for image in values]).mean(axis=0)
    np.testing.assert_allclose(observer.compute(), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["mean", "moments"])
def test_batches_and_single_images_give_the_same(kind: str) -> None:
    conv, shape = CASES["atrous"]
    weight = np.zeros(shape, np.float32)
    values = images(conv, weight, 6)
    whole, single = ((PatchMean(conv) if kind == "mean" else PatchMoments(conv, weight)) for _ in range(2))
    whole.collect(values)
    for image in values:
        single.collect(image[None])
    if kind == "mean":
        np.testing.assert_allclose(single.compute(), whole.compute(), rtol=1e-12)
    else:
        np.testing.assert_allclose(single.compute().covariance, whole.compute().covariance, rtol=1e-5)


def test_of_a_large_map_so_many_positions_are_drawn_and_no_more() -> None:
    conv, weight = conv_of((60, 70)), np.zeros((2, 2, 3, 3), np.float32)
    values = images(conv, weight, 12)
    moments = PatchMoments(conv, weight, positions=512)
    moments.collect(values)
    assert moments.compute().count == 12 * 512
    patches = np.concatenate([patches_of(image, conv) for image in values[:2]])
    np.testing.assert_allclose(moments.compute().mean[0], patches.reshape(len(patches), -1).mean(axis=0), atol=0.15)


def test_few_images_give_more_positions_each_and_many_give_some() -> None:
    assert [positions_of(images) for images in (1, 32, 10000)] == [module.SAMPLES, module.SAMPLES // 32, 64]


@pytest.mark.parametrize("name", ["pointwise", "depthwise", "grouped", "atrous", "mostly padding"])
def test_what_an_error_causes_goes_with_the_patch_at_the_same_position(name: str) -> None:
    conv, shape = CASES[name]
    weight = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    values, errors = images(conv, weight) + 30, images(conv, weight, seed=5)
    errors += values / 2
    moments = PatchMoments(conv, weight)
    moments.collect_pair(values, errors)
    groups = zip(to_blocks(weight, conv), rows_of(conv, weight, values), rows_of(conv, weight, errors), strict=True)
    wanted = [
        [
            [np.mean(o * p) - np.mean(o) * np.mean(p) for p in rows.T.astype(np.float64)]
            for o in block @ error.T.astype(np.float64)
        ]
        for block, rows, error in groups
    ]
    np.testing.assert_allclose(moments.cross_covariance(), wanted, rtol=2e-3, atol=2e-2)
    single = PatchMoments(conv, weight)
    single.collect(values)
    np.testing.assert_array_equal(moments.compute().covariance, single.compute().covariance)


@pytest.mark.parametrize("mean", [0, 10, 1000])
def test_a_large_mean_leaves_the_covariance_as_it_is(mean: float) -> None:
    conv, shape = CASES["pointwise"]
    weight = np.zeros(shape, np.float32)
    values = mean + images(conv, weight, 20) / 10
    moments = PatchMoments(conv, weight)
    moments.collect(values.astype(np.float32))
    rows = values.astype(np.float32).astype(np.float64).transpose(1, 0, 2, 3).reshape(4, -1)
    np.testing.assert_allclose(moments.compute().covariance[0], np.cov(rows, bias=True), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("values", [1.7, -2.1, 0.0, 255.0])
def test_pictures_of_one_colour_have_no_covariance_and_can_be_rounded_for(values: float) -> None:
    conv = conv_of((20, 20), pads=(0, 0, 0, 0))
    weight = np.random.default_rng(0).standard_normal((8, 32, 3, 3)).astype(np.float32)
    moments = PatchMoments(conv, weight)
    colours = values * np.linspace(0.3, 1, 32, dtype=np.float32)
    for _ in range(30):
        moments.collect(np.broadcast_to(colours[None, :, None, None], (1, 32, 20, 20)))
    covariance = moments.compute().covariance
    np.testing.assert_array_equal(covariance, 0)
    steps = np.full((1, 8), 0.02, np.float32)
    assert np.isfinite(learned_rounding(to_blocks(weight, conv), steps, covariance, 127)).all()


def test_a_first_patch_unlike_all_others_leaves_a_covariance_that_has_a_root() -> None:
    """Zeros, and then what hardly varies about 6: sums about the first patch would lose in rounding what the others vary by."""
    conv, weight = conv_of((1, 1), kernel=1), np.random.default_rng(0).standard_normal((8, 32, 1, 1)).astype(np.float32)
    values = 6.1 + 1e-4 * np.random.default_rng(1).standard_normal((8000, 32, 1, 1)).astype(np.float32)
    values[0] = 0
    moments = PatchMoments(conv, weight)
    moments.collect(values)
    found = moments.compute().covariance
    wanted = np.cov(values.reshape(len(values), -1).astype(np.float64), rowvar=False, bias=True)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=1e-7)
    steps = np.full((1, 8), 0.02, np.float32)
    assert np.isfinite(learned_rounding(to_blocks(weight, conv), steps, found, 127)).all()


@pytest.mark.parametrize("observer", [PatchMean(conv_of((4, 4))), PatchMoments(conv_of((4, 4)), np.zeros((1, 1, 3, 3)))])
def test_without_any_image_there_is_nothing_to_compute(observer) -> None:
    with pytest.raises(ValueError, match="nothing was collected for conv"):
        observer.compute()


def test_the_longest_patch_has_a_covariance_of_the_size_that_is_told() -> None:
    assert round(module.LONGEST**2 * np.dtype(np.float32).itemsize / 1e6) == 21
