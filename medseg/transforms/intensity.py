"""From stored intensities to those that a network sees."""

from __future__ import annotations

import torch

from medseg.core.plan import IntensityPlan

__all__ = ["map_intensity"]


def map_intensity(channel: torch.Tensor, plan: IntensityPlan) -> torch.Tensor:
    """Stored intensities to network input: clip, transform, shift, scale.

    Parameters
    ----------
    channel
        (...) float32, stored unit of the channel.
    plan
        The mapping.

    Returns
    -------
    (...) float32.
    """
    clipped = channel.clamp(plan.low, plan.high)
    transformed = clipped.sqrt() if plan.transform == "sqrt" else clipped
    return (transformed - plan.shift) / plan.scale
