"""From a plan to a network, and how its windows must be shaped."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from torch import nn

from medseg.core.plan import Plan
from medseg.core.recipe import smallest_divisor
from medseg.errors import InvalidPlan
from medseg.networks.ensemble import MeanOfNetworks
from medseg.networks.heads import N_HEAD_CHANNELS
from medseg.networks.instance_heads import SegResNetWithHeads, UNetWithHeads
from medseg.networks.nnunet import NnunetNetwork
from medseg.networks.nnunet_plan import nnunet_architecture
from medseg.networks.segresnet import segresnet, segresnet_arguments
from medseg.networks.unet import unet, unet_arguments

__all__ = ["build_member", "build_network", "described_network", "monai_network"]


def build_network(plan: Plan) -> nn.Module:
    """The network that a plan names, with fresh weights.

    Raises
    ------
    InvalidPlan
        If filters and strides do not go together, or the patch cannot be halved as often as the network does.
    """
    _check(plan)
    members = [build_member(plan) for _ in range(plan.network.members)]
    return members[0] if len(members) == 1 else MeanOfNetworks(members)


def build_member(plan: Plan) -> nn.Module:
    """One network of those that a plan's model is the mean of."""
    n_inputs, n_classes = len(plan.channels), plan.labels.highest + 1
    if plan.network.is_nnunet:
        return NnunetNetwork(nnunet_architecture(plan.network, n_inputs, n_classes))
    if plan.network.kind == "segresnet":
        if plan.network.instance_heads:
            return SegResNetWithHeads(**segresnet_arguments(plan.network, n_inputs, n_classes))
        return segresnet(plan.network, n_inputs, n_classes)
    if plan.network.instance_heads:
        return UNetWithHeads(**unet_arguments(plan.network, n_inputs, n_classes + N_HEAD_CHANNELS))
    return unet(plan.network, n_inputs, n_classes)


def monai_network(plan: Plan) -> dict[str, Any]:
    """One member in MONAI's bundle language: its class as `_target_`, and its arguments.

    Instance heads that are a branch of their own are not in it; those of a U-Net are its last four channels. MONAI has
    no class for nnU-Net's kinds.
    """
    n_inputs, n_outputs = len(plan.channels), plan.labels.highest + 1
    if plan.network.kind == "segresnet":
        return {"_target_": "SegResNet", **segresnet_arguments(plan.network, n_inputs, n_outputs)}
    n_outputs += N_HEAD_CHANNELS if plan.network.instance_heads else 0
    return {"_target_": "UNet", **unet_arguments(plan.network, n_inputs, n_outputs)}


def described_network(plan: Plan) -> tuple[str, str, dict[str, Any]]:
    """One member as family, name and arguments, see `medseg.networks.description`."""
    if plan.network.is_nnunet:
        architecture = nnunet_architecture(plan.network, len(plan.channels), plan.labels.highest + 1)
        return "nnunet", NnunetNetwork.__name__, json.loads(json.dumps(asdict(architecture)))
    arguments = monai_network(plan)
    name = str(arguments.pop("_target_"))
    return ("medseg", f"{name}WithHeads", arguments) if plan.network.instance_heads else ("monai", name, arguments)


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
    if network.is_nnunet and network.norm == "instance" and patch == divisor:
        raise InvalidPlan(
            f"plan {plan.name}: patch_size {patch} leaves one voxel at the coarsest level, which instance norm "
            "cannot take; make a side twice as long"
        )
