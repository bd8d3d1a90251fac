"""Deep supervision: which resolutions a network is trained at, and that it stays the network that it was."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from medseg.core.plan import NetworkPlan
from medseg.networks.build import build_member
from medseg.networks.supervision import supervised
from medseg.training.losses import SupervisedLoss, segmentation_loss
from tests.plans import tiny_plan

NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"residual_units": 1},
    "segresnet": {"filters": (8, 16, 32, 64), "residual_units": (1, 1, 1, 1)},
    "plain_conv_unet": {"residual_units": 1, "decoder_units": 1},
    "residual_encoder_unet": {"residual_units": 1, "decoder_units": 1},
}


@pytest.mark.parametrize("has_heads", [False, True])
@pytest.mark.parametrize("kind", NETWORKS)
def test_lower_resolutions_come_out_beside_what_the_network_gives(kind: str, has_heads: bool) -> None:
    if has_heads and kind not in ("unet", "segresnet"):
        pytest.skip("nnU-Net's networks have no instance heads")
    network = NetworkPlan(
        **({"kind": kind, "filters": (4, 8, 16, 32), "strides": (2, 2, 2)} | NETWORKS[kind]), instance_heads=has_heads
    )
    plan = tiny_plan(patch_size=(32, 16, 16)).model_copy(update={"network": network})
    member = build_member(plan).eval()
    names, image = set(member.state_dict()), torch.rand(2, 1, 32, 16, 16)
    with torch.no_grad():
        before = deepcopy(member)(image)
        own, lower = supervised(member, plan)(image)
    assert [tuple(logits.shape) for logits in lower] == [(2, 2, 16, 8, 8), (2, 2, 8, 4, 4)]
    heads = (own, before) if isinstance(own, dict) else ({"": own}, {"": before})
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[1])
    assert set(member.state_dict()) == names


def test_each_resolution_counts_half_of_the_one_above_it() -> None:
    label = torch.zeros(1, 1, 8, 8, 8)
    label[..., 2:6, 2:6, 2:6] = 1  # on the grid of both lower resolutions
    lower = [torch.randn(1, 2, side, side, side) for side in (8, 4, 2)]
    loss, small = segmentation_loss(), [label, label[..., 1::2, 1::2, 1::2], label[..., 2::4, 2::4, 2::4]]
    expected = sum(0.5**n * loss(logits, own) for n, (logits, own) in enumerate(zip(lower, small, strict=True)))
    assert SupervisedLoss(loss)((lower[0], lower[1:]), label) == pytest.approx(float(expected))
