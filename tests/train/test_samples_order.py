"""Which samples a step sees, and how they are augmented: decided by seed, epoch and index alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import SIZE
from torch import Tensor
from torch.utils.data import DataLoader

from dlv3deploy.core.datasets import open_dataset
from dlv3deploy.core.spec import InputSpec
from dlv3deploy.train.augment import Augmentation
from dlv3deploy.train.samples import AugmentedSamples, EpochBatches, steps_per_epoch

sizes, batch_sizes, seeds = st.integers(1, 40), st.integers(2, 12), st.integers(0, 2**62)


def batches(
    size: int, batch_size: int, seed: int, first: int, last: int, rank: int = 0, processes: int = 1
) -> list[list[tuple[int, int]]]:
    return list(EpochBatches(range(size), batch_size, seed, first, last, rank, processes))


@given(sizes, batch_sizes, seeds)
def test_an_epoch_shows_every_sample_at_most_once_and_drops_less_than_a_batch(size: int, batch_size: int, seed: int) -> None:
    if size < batch_size:
        return
    steps = steps_per_epoch(size, batch_size)
    for epoch in range(3):
        shown = [key for batch in batches(size, batch_size, seed, epoch * steps, (epoch + 1) * steps) for key in batch]
        assert {e for e, _ in shown} == {epoch}
        indices = [index for _, index in shown]
        assert len(set(indices)) == len(indices) > size - batch_size
        assert set(indices) <= set(range(size))


def test_an_epoch_of_whole_batches_is_a_permutation_and_each_epoch_another() -> None:
    epochs = [[i for batch in batches(12, 4, 5, 3 * e, 3 * e + 3) for _, i in batch] for e in range(6)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_every_sample_has_its_turn_although_epochs_drop_some() -> None:
    shown = Counter(index for batch in batches(7, 3, 1, 0, 200) for _, index in batch)
    assert set(shown) == set(range(7)) and min(shown.values()) > 0.7 * max(shown.values())


@given(sizes, batch_sizes, seeds, st.integers(0, 30), st.integers(0, 30))
def test_starting_at_a_later_step_continues_the_same_order(
    size: int, batch_size: int, seed: int, first: int, more: int
) -> None:
    whole = batches(size, batch_size, seed, 0, first + more)
    assert batches(size, batch_size, seed, first, first + more) == whole[first:]
    assert len(EpochBatches(range(size), batch_size, seed, first, first + more)) == more


@given(st.integers(1, 8), st.integers(2, 30), seeds)
def test_a_set_smaller_than_the_batch_fills_it_evenly(size: int, batch_size: int, seed: int) -> None:
    if size > batch_size:
        return
    for epoch, batch in enumerate(batches(size, batch_size, seed, 0, 3)):
        assert len(batch) == batch_size and {e for e, _ in batch} == {epoch}
        shown = Counter(index for _, index in batch)
        assert set(shown) == set(range(size)) and max(shown.values()) - min(shown.values()) <= 1


@given(sizes, st.integers(1, 4), st.integers(1, 4), seeds)
def test_the_shares_of_all_processes_are_the_batch_of_one(size: int, share: int, processes: int, seed: int) -> None:
    batch_size = share * processes
    whole = batches(size, batch_size, seed, 2, 6)
    shares = [batches(size, batch_size, seed, 2, 6, rank, processes) for rank in range(processes)]
    for step, batch in enumerate(whole):
        assert all(len(part[step]) == share for part in shares)
        assert sorted(key for part in shares for key in part[step]) == sorted(batch)


@given(seeds, seeds)
def test_another_seed_is_another_order(seed: int, other: int) -> None:
    if seed != other:
        assert batches(30, 15, seed, 0, 4) != batches(30, 15, other, 0, 4)


@pytest.fixture
def samples(few_scenes: Path) -> AugmentedSamples:
    return AugmentedSamples(open_dataset(few_scenes, "train"), Augmentation((48, 64)), InputSpec(*SIZE), seed=7)


def test_a_sample_is_a_normalised_crop_and_its_label(samples: AugmentedSamples) -> None:
    image, label = samples[0, 1]
    assert image.shape == (3, 48, 64) and image.dtype == torch.float32
    assert label.shape == (48, 64) and label.dtype == torch.int64
    classes = samples.dataset.classes
    assert set(label.flatten().tolist()) <= {*range(len(classes)), classes.ignore_index}


def test_without_scaling_flip_or_crop_a_sample_is_the_preprocessed_image(few_scenes: Path) -> None:
    dataset = open_dataset(few_scenes, "train")
    image, label = AugmentedSamples(dataset, Augmentation(SIZE, (1, 1), flip=False), InputSpec(*SIZE), seed=7)[4, 2]
    frame, mask = dataset.samples[2].read()
    mean, std = np.array((123.675, 116.28, 103.53)), np.array((58.395, 57.12, 57.375))
    expected = ((frame[:, :, ::-1] - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(image.numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(label.numpy(), mask)


def test_a_sample_depends_on_seed_epoch_and_index_only(samples: AugmentedSamples, few_scenes: Path) -> None:
    first = samples[3, 1]
    np.random.default_rng(0).random(5), torch.manual_seed(5), samples[0, 0]
    assert equal(samples[3, 1], first)
    assert not equal(samples[4, 1], first)
    assert not equal(samples[3, 2], first)
    other = AugmentedSamples(samples.dataset, samples.augmentation, InputSpec(*SIZE), seed=8)
    assert not equal(other[3, 1], first)


def equal(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(samples: AugmentedSamples, workers: int) -> None:
    def loaded(workers: int) -> list[tuple[Tensor, Tensor]]:
        loader = DataLoader(samples, batch_sampler=EpochBatches(samples.dataset, 2, 7, 1, 6), num_workers=workers)
        return [(images, labels) for images, labels in loader]

    assert all(equal(a, b) for a, b in zip(loaded(0), loaded(workers), strict=True))
