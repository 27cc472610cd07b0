"""Augmented samples for training, in an order and with randomness that depend on the seed and the position alone.

Nothing random is kept between steps, so a resumed run sees exactly the samples that an unbroken run would have seen, whatever
the number of worker processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler, default_collate

from dlv3deploy.core.datasets import Dataset
from dlv3deploy.core.errors import Dlv3Error
from dlv3deploy.core.preprocess import mean_colour, preprocess
from dlv3deploy.core.spec import InputSpec
from dlv3deploy.train.augment import Augmentation

Pair = tuple[Tensor, Tensor]  # image(s) (N×)3×H×W float32, label(s) (N×)H×W int64


class AugmentedSamples(TorchDataset[Pair]):
    """(epoch, index) → an image 3×crop float32, normalised as `spec` says, and its label, crop int64."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation, spec: InputSpec, seed: int) -> None:
        self.dataset, self.augmentation, self.seed = dataset, augmentation, seed
        self.spec = replace(spec, height=augmentation.crop[0], width=augmentation.crop[1], resize="stretch")

    def __getitem__(self, key: tuple[int, int]) -> Pair:
        epoch, index = key
        random = np.random.default_rng((self.seed, epoch, index))
        frame, label = self.dataset.samples[index].read()
        ignore = self.dataset.classes.ignore_index
        frame, label = self.augmentation(frame, label, ignore, mean_colour(self.spec), random)
        image, _ = preprocess(frame, self.spec)
        return torch.from_numpy(image[0]), torch.from_numpy(label.astype(np.int64))

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[Pair] | Exception:
        """What a loader takes, with an error in their place: raised in a worker it would come as a text of many lines."""
        try:
            return [self[key] for key in keys]
        except (Dlv3Error, OSError) as error:
            return error


def collate(items: list[Pair] | Exception) -> Pair | Exception:
    """The items as one batch, or the error instead of them."""
    if isinstance(items, Exception):
        return items
    images, labels = default_collate(items)
    return images, labels


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """This process's parts of the batches from `first_step` to `last_step`, as (epoch, index); `passes` of them a step.

    `batch_size` counts the images of all processes and passes together. Every epoch is a new shuffle, its incomplete batch
    dropped.
    """

    def __init__(
        self,
        data: Sized,
        batch_size: int,
        seed: int,
        first_step: int,
        last_step: int,
        rank: int = 0,
        processes: int = 1,
        passes: int = 1,
    ) -> None:
        self.size, self.batch_size, self.seed = len(data), batch_size, seed
        self.first_step, self.last_step = first_step, last_step
        self.rank, self.processes, self.passes = rank, processes, passes

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.size, self.batch_size)

    def __len__(self) -> int:
        return max(0, self.last_step - self.first_step) * self.passes

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first_step, self.last_step):
            epoch, position = divmod(step, self.steps_per_epoch)
            order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
            # A set smaller than the batch is repeated until it fills one.
            picked = np.resize(order, max(self.size, self.batch_size))[position * self.batch_size :][: self.batch_size]
            for number in range(self.passes):
                places = part_of_batch(self.batch_size, number, self.passes, self.rank, self.processes)
                yield [(epoch, int(picked[place])) for place in places]


def part_of_batch(batch_size: int, number: int, passes: int, rank: int, processes: int) -> range:
    """The places in a batch of the images that process `rank` computes in pass `number`."""
    return range(rank + processes * number, batch_size, processes * passes)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    return max(1, samples // batch_size)
