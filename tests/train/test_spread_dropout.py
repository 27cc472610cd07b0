"""Dropout whose masks belong to the images of a batch, however it is spread."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlv3deploy.train.network.dropout import SpreadDropout, share_dropout
from dlv3deploy.train.samples import part_of_batch


def test_it_drops_the_given_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    out = SpreadDropout(0.3).train()(torch.ones(4, 8, 50, 50))
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(out.mean()) == pytest.approx(1, abs=0.01)
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7])


def test_in_evaluation_and_at_probability_nought_it_does_nothing() -> None:
    x = torch.randn(2, 3, 4, 4)
    assert SpreadDropout(0.5).eval()(x) is x
    assert SpreadDropout(0.0).train()(x) is x


@pytest.mark.parametrize(("passes", "processes"), [(1, 1), (2, 1), (1, 2), (3, 2), (1, 5)])
def test_parts_of_a_batch_get_the_masks_that_the_whole_batch_gets(passes: int, processes: int) -> None:
    x = torch.randn(7, 3, 4, 5)
    network = nn.Sequential(SpreadDropout(0.5)).train()
    torch.manual_seed(3)
    share_dropout(network, torch.arange(7), 7)
    whole = network(x)
    seen: list[int] = []
    for rank in range(processes):
        for number in range(passes):
            places = list(part_of_batch(7, number, passes, rank, processes))
            torch.manual_seed(3)
            share_dropout(network, torch.tensor(places, dtype=torch.long), 7)
            assert torch.equal(network(x[places]), whole[places])
            seen += places
    assert sorted(seen) == list(range(7))
