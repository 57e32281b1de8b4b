"""What a run runs on: Fabric's device, precision and processes. It is imported when one begins."""

import logging
import os
import warnings
from datetime import timedelta
from inspect import signature
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from whatwhere.core import InputError

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others, which read their images and judge meanwhile."""


class Compiling(Fabric):
    """A Fabric that compiles what it sets up: module and objective in one."""

    def setup(self, module: nn.Module, *optimizers: Any, **settings: Any) -> Any:
        """Set up the compiled module."""
        # What we keep in caches follows from its arguments alone: to trace through is right.
        warnings.filterwarnings(
            "ignore", message=r"Dynamo detected a call to a `functools.lru_cache"
        )
        compiled: Any = torch.compile(module)
        return super().setup(compiled, *optimizers, **settings)


def begin(
    accelerator: str,
    *,
    devices: int = 1,
    n_nodes: int = 1,
    precision: Any = "32-true",
    compiled: bool = False,
) -> Fabric:
    """Return a Fabric on this device; among several processes, one that has met the others.

    Parameters
    ----------
    accelerator : {"cpu", "cuda", "mps"}
    devices : int
        Processes on this machine, one a device.
    n_nodes : int
        Machines with as many.
    precision : str
        As Fabric calls it.
    compiled : bool
        Whether updates are compiled.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells what was asked for
    kind = Compiling if compiled else Fabric
    if devices * n_nodes == 1:
        # Named, or a batch script of SLURM with a single process would be taken for many.
        alone = LightningEnvironment()
        return kind(accelerator=accelerator, devices=1, precision=precision, plugins=[alone])
    # What runs on a GPU is synchronized there; what processes ask each other, on the CPU.
    backend = "cpu:gloo,cuda:nccl" if accelerator == "cuda" else "gloo"
    # torch 2.13 has a new name for it.
    forward = "forward_sync_buffers"
    known = forward in signature(DistributedDataParallel).parameters
    buffers: dict[str, Any] = {forward if known else "broadcast_buffers": False}
    strategy = DDPStrategy(process_group_backend=backend, timeout=PATIENCE, **buffers)
    fabric = kind(
        accelerator=accelerator,
        devices=devices,
        num_nodes=n_nodes,
        precision=precision,
        strategy=strategy,
        plugins=[cluster()],
    )
    fabric.launch()
    return fabric


def cluster() -> ClusterEnvironment:
    """Return who started the processes: torchrun, srun, or we ourselves.

    Raises
    ------
    InputError
        If srun was asked for them in a way that Fabric does not know.
    """
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if "SLURM_STEP_NUM_TASKS" in os.environ and "LOCAL_RANK" not in os.environ:
        try:
            return SLURMEnvironment()
        except RuntimeError as error:
            raise InputError(str(error)) from None
    return LightningEnvironment()
