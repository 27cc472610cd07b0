"""Which of `train`'s options go together: one that would have no effect is refused, not ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlv3deploy.core.spec import Architecture

NETWORK = (
    "backbone",
    "width",
    "head",
    "blocks",
    "multi_grid",
    "aspp_rates",
    "aspp_channels",
    "aspp_batch_norm",
    "image_pooling",
    "final_convolution",
    "decoder",
)  # what `--from` brings; the output stride and the auxiliary head may be others than the checkpoint's


def check_together(given: Mapping[str, str]) -> None:
    """Raise UserError for options in `given` (parameters, as they are spelt) of which one makes another void."""
    from dlv3deploy.core.errors import UserError

    if "backbone_weights" in given and "start_from" in given:
        raise UserError("--backbone-weights and --from", "both say where the weights begin", "give one of them")
    if "start_from" in given and (network := [given[name] for name in NETWORK if name in given]):
        named = ", ".join(network)
        rule = "the network is the checkpoint's, of which --output-stride and --auxiliary alone may be others"
        raise UserError(f"--from with {named}", rule, f"leave {named} out")
    if "frozen_batch_norm" in given and not given.keys() & {"start_from", "backbone_weights", "resume"}:
        raise UserError(
            "--freeze-batch-norm with random weights",
            "batch norm would for ever keep statistics that no image was measured for",
            "begin with --from CHECKPOINT or --backbone-weights FILE, or leave it out",
        )
    if "frozen_batch_norm" in given and "batch_norm_momentum" in given:
        raise UserError(
            "--batch-norm-momentum with --freeze-batch-norm", "frozen statistics do not move", "leave one of them out"
        )
    if "repeats" in given and "repeat_classes" not in given:
        raise UserError("--repeats", "says how often the images with --repeat-classes come", "add those, or leave it out")


def check_effect(given: Mapping[str, str], architecture: Architecture) -> None:
    """Raise UserError for options that the network has no use for."""
    from dlv3deploy.core.errors import UserError
    from dlv3deploy.train.network.choices import idle_settings

    idle = [(given[name], reason) for name, reason in idle_settings(architecture).items() if name in given]
    if idle:
        named = ", ".join(option for option, _ in idle)
        network = f"head {architecture.head}{' and the decoder' * architecture.decoder}"
        raise UserError(f"{named} with {network}", idle[0][1], f"leave {named} out, or choose another network")
