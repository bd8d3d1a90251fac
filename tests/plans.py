"""Small plans and networks for tests."""

from __future__ import annotations

import torch
from torch import nn

from medseg.core.labels import LabelScheme
from medseg.core.plan import ChannelPlan, InferencePlan, IntensityPlan, NetworkPlan, Plan, TrainingPlan

IDENTITY = IntensityPlan(low=-1e6, high=1e6)


def tiny_plan(
    *,
    spacing_mm: tuple[float, float, float] | None = (4.0, 4.0, 4.0),
    patch_size: tuple[int, int, int] = (16, 16, 16),
    intensity: IntensityPlan = IDENTITY,
    n_channels: int = 1,
    orientation: str = "RAS",
    mirror_axes: tuple[int, ...] = (),
    steps: int = 4,
    seed: int = 0,
) -> Plan:
    """A plan whose network trains in a blink."""
    channel = ChannelPlan(name="PET", modality="PT", units="suv", intensity=intensity)
    return Plan(
        name="tiny",
        channels=(channel,) * n_channels,
        labels=LabelScheme(classes={1: "tumor"}),
        orientation=orientation,
        spacing_mm=spacing_mm,
        network=NetworkPlan(filters=(4, 8, 16), strides=(2, 2), residual_units=1),
        inference=InferencePlan(patch_size=patch_size, mirror_axes=mirror_axes),
        training=TrainingPlan(steps=steps, batch_size=2, checkpoint_every=2, warmup_steps=1, seed=seed),
    )


class BrighterThan(nn.Module):
    """A network that knows its answer: foreground logit x - threshold, background logit 0."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        foreground = 20.0 * (image[:, :1] - self.threshold)
        return torch.cat([torch.zeros_like(foreground), foreground], dim=1)
