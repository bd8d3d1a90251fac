"""SegResNet: a 3-D U-Net of pre-activation residual blocks whose first level keeps the full resolution.

It has the parameters of MONAI's `SegResNet`, so that a bundle of ours runs on plain MONAI; this module only says how
its numbers follow from the plan.

References
----------
Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, BrainLes 2018.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from medseg.core.plan import NetworkPlan
from medseg.errors import InvalidPlan
from medseg.networks.monai_segresnet import SegResNet

__all__ = ["segresnet", "segresnet_arguments"]


def segresnet_arguments(plan: NetworkPlan, n_inputs: int, n_outputs: int) -> dict[str, Any]:
    """The arguments of `monai.networks.nets.SegResNet`, as plain JSON values.

    Raises
    ------
    InvalidPlan
        If the plan asks for what a SegResNet has not: filters that do not double, strides other than 2.
    """
    first, n_levels = plan.filters[0], len(plan.filters)
    if plan.filters != tuple(first * 2**level for level in range(n_levels)) or first % 8:
        raise InvalidPlan(
            f"a segresnet starts with a multiple of 8 filters and doubles them at each level; got {plan.filters}"
        )
    if any(stride != 2 for stride in plan.strides):
        raise InvalidPlan(f"a segresnet halves the grid at each level; got strides {plan.strides}")
    units = plan.residual_units
    blocks = [units] * n_levels if isinstance(units, int) else list(units)
    if len(blocks) != n_levels:
        raise InvalidPlan(f"{n_levels} levels need as many residual_units, or one number for all; got {units}")
    return {
        "spatial_dims": 3,
        "init_filters": first,
        "in_channels": n_inputs,
        "out_channels": n_outputs,
        "dropout_prob": plan.dropout or None,
        "norm": plan.norm,
        "blocks_down": blocks,
        "blocks_up": [1] * (n_levels - 1),
    }


def segresnet(plan: NetworkPlan, n_inputs: int, n_outputs: int) -> nn.Module:
    """A SegResNet with fresh weights.

    Parameters
    ----------
    plan
        Filters, residual blocks a level, normalization, dropout.
    n_inputs, n_outputs
        Channels in; logits out (classes and background).

    Returns
    -------
    Module from (B, n_inputs, I, J, K) to (B, n_outputs, I, J, K), for I, J, K divisible by the product of strides.

    Raises
    ------
    InvalidPlan
        As `segresnet_arguments`.
    """
    network: nn.Module = SegResNet(**segresnet_arguments(plan, n_inputs, n_outputs))
    return network
