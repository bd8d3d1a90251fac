"""From stored intensities to those that a network sees."""

from __future__ import annotations

import torch

from medseg.core.plan import IntensityPlan

__all__ = ["map_intensity"]


def map_intensity(channel: torch.Tensor, plan: IntensityPlan) -> torch.Tensor:
    """Stored intensities to network input: standardize, clip, transform, shift, scale.

    Parameters
    ----------
    channel
        (...) float32, stored unit of the channel; the whole scan, where the plan standardizes by it.
    plan
        The mapping.

    Returns
    -------
    (...) float32.
    """
    if plan.standardize != "none":
        channel = _standardized(channel, only_nonzero=plan.standardize == "nonzero")
    clipped = channel.clamp(plan.low, plan.high)
    transformed = clipped.sqrt() if plan.transform == "sqrt" else clipped
    return (transformed - plan.shift) / plan.scale


def _standardized(channel: torch.Tensor, *, only_nonzero: bool) -> torch.Tensor:
    """Mean 0 and standard deviation 1, as MONAI's `NormalizeIntensity`; an even channel is only shifted."""
    inside = channel != 0 if only_nonzero else torch.ones_like(channel, dtype=torch.bool)
    values = channel[inside]
    if not len(values):
        return channel
    std = float(values.std(unbiased=False)) or 1.0
    return torch.where(inside, (channel - values.mean()) / std, channel)
