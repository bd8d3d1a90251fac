"""What training costs: memory, found without computing anything, and seconds, by a few steps on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from math import prod

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from medseg.core.plan import Plan
from medseg.inference.activations import MemoryMeter
from medseg.io.memory import resident_bytes
from medseg.networks.build import build_member
from medseg.networks.supervision import supervised
from medseg.training.datasets import batches
from medseg.training.loop import train_steps
from medseg.training.team import Team
from medseg.transforms.augment import TrainingCase

__all__ = ["seconds_a_step", "training_bytes"]

_TIMED_STEPS = 3
_COPIES = 5  # of the weights: themselves, gradients, two moments, moving average
_LOSS_MAPS = 4  # float32 maps of the loss's own for each output: softmax, one-hot, products
_SLACK = 1.3  # scratch memory inside operators, and the next batch that is drawn meanwhile


def training_bytes(plan: Plan, scans_mm3: float) -> int:
    """Bytes that the process takes at the peak of training, what it takes now included.

    Parameters
    ----------
    plan
        Network, patch, batch.
    scans_mm3
        Volume of all scans together: they are held in memory on the network's grid.
    """
    n_arrays = len(plan.channels) + 2  # image, classes, lesion numbers
    voxels = scans_mm3 / prod(plan.spacing_mm) if plan.spacing_mm is not None else 0.0
    n_weights = sum(parameter.numel() for parameter in build_member(plan).parameters())
    held = 4 * (n_arrays * voxels + _COPIES * n_weights)
    return int(resident_bytes() + held + _SLACK * _step_bytes(plan))


def _step_bytes(plan: Plan) -> int:
    """Peak of one forward and backward pass of a whole batch of full windows.

    A sum of squares stands for the loss, which asks for values that a traced tensor has not; its maps are added.
    """
    patch, size = plan.inference.patch_size, plan.training.batch_size
    network, meter = build_member(plan).train(), MemoryMeter()
    if plan.training.deep_supervision:
        network = supervised(network, plan)
    with FakeTensorMode(allow_non_fake_inputs=True), meter:
        output = network(torch.empty((size, len(plan.channels), *patch)))
        own, lower = output if plan.training.deep_supervision else (output, [])
        heads = list(own.values()) if isinstance(own, dict) else [own]
        sums = [(head.float() ** 2).sum() for head in (*heads, *lower)]
        torch.stack(sums).sum().backward()  # type: ignore[no-untyped-call]
        n_maps = sum(int(head.shape[1]) for head in heads)
    n_bytes: int = meter.peak + _LOSS_MAPS * n_maps * size * prod(patch) * 4
    return n_bytes


def seconds_a_step(cases: Sequence[TrainingCase], plan: Plan, device: torch.device, n_devices: int = 1) -> float:
    """Mean seconds of an optimizer step on this machine, drawing its samples included, after a warm-up.

    Of several devices the first one's share of the batch is timed, the largest.
    """
    source = batches(cases, [], plan, 0, Team(0, n_devices))
    train_steps(islice(source, 1), plan, device)
    start = time.perf_counter()
    train_steps(islice(source, _TIMED_STEPS), plan, device)
    return (time.perf_counter() - start) / _TIMED_STEPS
