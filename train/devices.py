"""On which devices a run computes: all of this machine, or those that `torchrun` started a process for."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from dlv3deploy.core.errors import UserError
from dlv3deploy.train.plan import TrainingPlan
from dlv3deploy.train.precision import precision_for
from dlv3deploy.train.weights.state_dict import first_line

# gloo's threads need the interpreter's lock to let go of the last tensors; torch, which waits for them to end, would hold it.
GLOO_PAUSE_S = 0.2


def launched(plan: TrainingPlan) -> Fabric:
    """Fabric with every process started. Raises UserError where a device would be left without images."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    precision, placement = precision_for(plan.precision), _placement(plan.one_device)
    try:
        fabric = Fabric(precision=precision, **placement)
        fabric.launch()
    except (MisconfigurationException, torch.distributed.DistError) as error:
        raise UserError(
            "the processes of this run",
            f"cannot be started or connected ({first_line(error)})",
            "give torchrun as many processes as there are GPUs, and an address that all machines reach",
        ) from error
    torch.backends.cudnn.benchmark = fabric.device.type == "cuda"  # crops have one size, so that its search pays
    parts, fewest = plan.accumulate * fabric.world_size, plan.images_for_batch_norm
    if plan.batch_size < fewest * parts:
        raise UserError(
            f"batch size {plan.batch_size} on {fabric.world_size} devices, accumulated over {plan.accumulate}",
            f"each pass takes {fewest} images at least{'' if fewest == 1 else ', for batch norm'}",
            f"use --batch-size {fewest * parts} or more, or fewer devices (CUDA_VISIBLE_DEVICES)",
        )
    return fabric


def disconnect(fabric: Fabric) -> None:
    """Leave the other processes in order: one that is still connected when another ends may abort."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        fabric.barrier()
        time.sleep(GLOO_PAUSE_S)
        torch.distributed.destroy_process_group()


def _placement(one_device: bool) -> dict[str, Any]:
    """Fabric's settings: torchrun says how many processes there are, here and in all; without it every device gets one.

    Raises UserError for more processes than GPUs, where there are any.
    """
    if not started_by_torchrun():
        return {"accelerator": "auto", "devices": 1 if one_device else "auto"}
    here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if 0 < (gpus := torch.cuda.device_count()) < here:
        raise UserError(
            f"{here} processes on this machine",
            f"each needs a GPU of its own, and there {'is 1' if gpus == 1 else f'are {gpus}'}",
            f"use torchrun --nproc-per-node {gpus}, or CUDA_VISIBLE_DEVICES= to train on the CPU",
        )
    return {"accelerator": "auto", "devices": here, "num_nodes": everywhere // here, "strategy": "ddp"}


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_first_process() -> bool:
    """Whether this process speaks for all, before and after they are connected."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


def with_shared_statistics(model: nn.Module, fabric: Fabric) -> nn.Module:
    """`model` with batch norm that computes its statistics over all processes. Raises UserError without GPUs.

    torch has no SyncBatchNorm for CPUs. One process needs none, and keeps `model` as it is.
    """
    if fabric.device.type != "cuda":
        raise UserError("--sync-batch-norm", "needs GPUs: torch synchronises batch norm on them alone", "leave it out on CPUs")
    if fabric.world_size == 1:
        return model
    shared: nn.Module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]  # torch's own
    return shared
