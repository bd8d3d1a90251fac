"""The state of a training run on disk: tensors and plain values, loaded without running code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg.core.plan import Plan
from medseg.errors import TrainingError
from medseg.io.atomic import atomic_path
from medseg.networks.supervision import Supervised

__all__ = ["Best", "RunState", "read_checkpoint", "write_checkpoint"]


@dataclass(frozen=True)
class Best:
    """The weights, on the CPU, that did best in a validation so far: after which step, and how well."""

    step: int
    score: float
    weights: Mapping[str, torch.Tensor]


@dataclass
class RunState:
    """What changes while a network is trained; `step` counts finished steps, `losses` are those not yet in the log.

    `supervised` is the network with heads at lower resolutions, None without deep supervision.
    """

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    supervised: Supervised | None = None
    step: int = 0
    losses: list[float] = field(default_factory=list)
    best: Best | None = None


def write_checkpoint(path: Path, state: RunState, plan: Plan) -> None:
    """Write the run's state under a temporary name, then rename it."""
    with atomic_path(path) as draft:
        torch.save(
            {
                "step": state.step,
                "plan_sha256": plan.sha256,
                "network": state.network.state_dict(),
                "average": state.average.state_dict(),
                "lower_heads": None if state.supervised is None else state.supervised.heads.state_dict(),
                "optimizer": state.optimizer.state_dict(),
                "losses": state.losses,
                "best": None if state.best is None else dict(vars(state.best)),
            },
            draft,
        )


def read_checkpoint(path: Path, state: RunState, plan: Plan) -> None:
    """Put a written state back into a run.

    Raises
    ------
    TrainingError
        If the checkpoint was made with another plan.
    """
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if saved["plan_sha256"] != plan.sha256:
        raise TrainingError(
            f"{path}: this checkpoint was made with another plan (SHA-256 {saved['plan_sha256'][:12]}..., now "
            f"{plan.sha256[:12]}...); give the same plan, or start anew without --resume"
        )
    state.network.load_state_dict(saved["network"])
    state.average.load_state_dict(saved["average"])
    if state.supervised is not None:
        state.supervised.heads.load_state_dict(saved["lower_heads"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.step = int(saved["step"])
    state.losses = list(saved.get("losses", ()))
    state.best = Best(**saved["best"]) if saved.get("best") else None
