"""The 3-D U-Net: contracting and expanding path of residual units, joined at each level.

It has the parameters of MONAI's `UNet`, so that a bundle of ours runs on plain MONAI; this module only says how its
numbers follow from the plan.

References
----------
Ronneberger et al., U-Net, MICCAI 2015; Kerfoot et al., Left-Ventricle Quantification Using Residual U-Net, STACOM 2018.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from medseg.core.plan import NetworkPlan
from medseg.errors import InvalidPlan
from medseg.networks.monai_unet import UNet

__all__ = ["unet", "unet_arguments"]


def unet_arguments(plan: NetworkPlan, n_inputs: int, n_outputs: int) -> dict[str, Any]:
    """The arguments of `monai.networks.nets.UNet`, as plain JSON values.

    Raises
    ------
    InvalidPlan
        If residual units are given one a level.
    """
    if not isinstance(plan.residual_units, int):
        raise InvalidPlan(f"a unet has one number of residual_units for all levels; got {plan.residual_units}")
    return {
        "spatial_dims": 3,
        "in_channels": n_inputs,
        "out_channels": n_outputs,
        "channels": list(plan.filters),
        "strides": [list(s) if isinstance(s, tuple) else s for s in plan.strides],
        "num_res_units": plan.residual_units,
        "norm": plan.norm,
        "dropout": plan.dropout,
    }


def unet(plan: NetworkPlan, n_inputs: int, n_outputs: int) -> nn.Module:
    """A 3-D U-Net with fresh weights.

    Parameters
    ----------
    plan
        Filters, strides, residual units, normalization, dropout.
    n_inputs, n_outputs
        Channels in; logits out (classes and background).

    Returns
    -------
    Module from (B, n_inputs, I, J, K) to (B, n_outputs, I, J, K), for I, J, K divisible by the product of strides.
    """
    network: nn.Module = UNet(**unet_arguments(plan, n_inputs, n_outputs))
    return network
