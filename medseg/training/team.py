"""Processes that train one network together, one a device, each on its share of every batch.

Their gradients are averaged by torch's `DistributedDataParallel`, so that all of them hold the same weights after each
step; what one process would have computed alone comes out, up to the order of sums.

References
----------
Li et al., PyTorch Distributed: experiences on accelerating data parallel training, VLDB 2020.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from medseg.core.plan import Plan
from medseg.errors import TrainingError, UsageError

__all__ = ["Team", "check_team", "devices_of", "joined"]

T = TypeVar("T")

_PATIENCE = timedelta(days=7)  # nobody waits in vain: who started the processes ends all of them when one is gone


@dataclass(frozen=True)
class Team:
    """One process as a member of those that train together; alone by default.

    Parameters
    ----------
    rank
        Its number from 0; the first one validates, logs and writes checkpoints.
    size
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The part of this process in what is shared out: every `size`-th from its own number on."""
        return items[self.rank :: self.size]

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with gradients that are the mean over all processes; the network itself if there is one."""
        if self.size == 1:
            return network
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")  # of 1 x 1 x 1 kernels
        return DistributedDataParallel(
            network,
            device_ids=[device] if device.type == "cuda" else None,
            find_unused_parameters=True,  # keeps the order of sums as in the first step, so also when resumed
        )

    def quiet(self, network: nn.Module, *, until_last: bool) -> AbstractContextManager[None]:
        """A context in which a backward pass of a wrapped network only adds up gradients, or averages them too."""
        if self.size == 1 or until_last or not isinstance(network, DistributedDataParallel):
            return nullcontext()
        return network.no_sync()

    def total(self, value: float) -> float:
        """The sum of a number over all processes, the same in each."""
        if self.size == 1:
            return value
        number = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(number)
        return float(number.item())

    def gather(self, own: Sequence[T]) -> list[T]:
        """What every process made of its share of some items, in the order of the items, in each process."""
        if self.size == 1:
            return list(own)
        parts: list[Sequence[T]] = [() for _ in range(self.size)]
        distributed.all_gather_object(parts, own)
        n_items = sum(map(len, parts))
        return [parts[number % self.size][number // self.size] for number in range(n_items)]


@contextmanager
def joined(rank: int, size: int, device: torch.device, meeting: Path) -> Iterator[Team]:
    """Be one of several processes of this machine, which meet at a file that is not there yet."""
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method=meeting.absolute().as_uri(),
        rank=rank,
        world_size=size,
        timeout=_PATIENCE,
    )
    team = Team(rank, size)
    yield team
    team.total(0.0)  # nobody leaves before all have heard the last word
    distributed.destroy_process_group()


def devices_of(device: torch.device, n: int) -> tuple[torch.device, ...]:
    """The devices of n processes: the CPU n times, or the first n CUDA devices.

    Raises
    ------
    UsageError
        If there are fewer CUDA devices, n is below 1, or one of several is named by its number.
    """
    if n < 1:
        raise UsageError(f"a network is trained on 1 device or more; got {n}")
    if n == 1:
        return (device,)
    if device.type != "cuda":
        return (device,) * n
    if device.index is not None:
        raise UsageError(
            f"{n} devices are the first {n} that CUDA shows; {device} names one. Give cuda, and choose which ones it "
            "shows by CUDA_VISIBLE_DEVICES"
        )
    if n > torch.cuda.device_count():
        raise UsageError(f"{n} CUDA devices are asked for; this machine shows {torch.cuda.device_count()}")
    return tuple(torch.device("cuda", number) for number in range(n))


def check_team(plan: Plan, n_devices: int) -> None:
    """Refuse a plan that cannot be trained on so many devices with the result that one would give.

    Raises
    ------
    TrainingError
        If a batch has fewer samples than there are devices, or the network has batch norm, whose statistics are those
        of a whole batch.
    """
    n_samples = plan.training.batch_size
    if n_devices > n_samples:
        raise TrainingError(
            f"plan {plan.name}: a batch of {n_samples} sample(s) cannot be shared out among {n_devices} devices; train "
            f"on {n_samples}, or with a batch_size of {n_devices} or more (--batch-size)"
        )
    if n_devices > 1 and plan.network.norm == "batch":
        raise TrainingError(
            f"plan {plan.name}: batch norm takes its statistics from a whole batch, which {n_devices} devices share "
            "out; train on one device, or with network.norm instance"
        )
