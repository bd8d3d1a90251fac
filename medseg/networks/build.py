"""From a plan to a network, and how its windows must be shaped."""

from __future__ import annotations

from math import prod

from torch import nn

from medseg.core.plan import NetworkPlan, Plan
from medseg.errors import InvalidPlan
from medseg.networks.unet import unet

__all__ = ["build_network", "smallest_divisor"]


def build_network(plan: Plan) -> nn.Module:
    """The network that a plan names, with fresh weights.

    Raises
    ------
    InvalidPlan
        If filters and strides do not go together, or the patch cannot be halved as often as the network does.
    """
    _check(plan)
    return unet(plan.network, n_inputs=len(plan.channels), n_outputs=plan.labels.highest + 1)


def smallest_divisor(plan: NetworkPlan) -> tuple[int, int, int]:
    """The smallest numbers that each side of a window must be divisible by."""
    per_axis = [[s[axis] if isinstance(s, tuple) else s for s in plan.strides] for axis in range(3)]
    return (prod(per_axis[0]), prod(per_axis[1]), prod(per_axis[2]))


def _check(plan: Plan) -> None:
    network = plan.network
    if len(network.strides) != len(network.filters) - 1:
        raise InvalidPlan(
            f"plan {plan.name}: {len(network.filters)} levels need {len(network.filters) - 1} strides; "
            f"got {len(network.strides)}"
        )
    divisor = smallest_divisor(network)
    patch = plan.inference.patch_size
    if any(side % d for side, d in zip(patch, divisor, strict=True)):
        raise InvalidPlan(f"plan {plan.name}: patch_size {patch} must be divisible by {divisor}, the network's strides")
