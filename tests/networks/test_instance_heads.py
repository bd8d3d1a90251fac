"""Heads beside the semantic map: by name, mirrored right, and without changing what the network says of classes."""

from __future__ import annotations

import torch
from monai.networks.nets import SegResNet, UNet
from torch import nn

from medseg.core.plan import NetworkPlan
from medseg.networks.build import build_network
from medseg.networks.heads import CENTER, OFFSET, SplitHeads, flip_heads
from medseg.networks.instance_heads import SegResNetWithHeads
from tests.plans import tiny_plan

SEGRESNET = {"spatial_dims": 3, "init_filters": 8, "in_channels": 1, "out_channels": 2, "norm": "instance"}


def test_networks_of_a_plan_give_three_heads() -> None:
    for network in (
        NetworkPlan(filters=(4, 8), strides=(2,), residual_units=1, instance_heads=True),
        NetworkPlan(kind="segresnet", filters=(8, 16), strides=(2,), residual_units=1, instance_heads=True),
    ):
        heads = build_network(tiny_plan().model_copy(update={"network": network}))(torch.zeros(2, 1, 16, 16, 16))
        shapes = {name: tuple(values.shape) for name, values in heads.items()}
        assert shapes == {
            "semantic": (2, 2, 16, 16, 16),
            "center": (2, 1, 16, 16, 16),
            "offset": (2, 3, 16, 16, 16),
        }


def test_heads_leave_a_trained_segresnet_as_it_was() -> None:
    torch.manual_seed(0)
    plain = SegResNet(**SEGRESNET).eval()
    with_heads = SegResNetWithHeads(**SEGRESNET).eval()
    missing, unexpected = with_heads.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("instance_") for name in missing)
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(with_heads(image)["semantic"], plain(image))


def test_weights_of_a_unet_with_heads_fit_a_plain_unet() -> None:
    plan = tiny_plan().model_copy(update={"network": NetworkPlan(filters=(4, 8), strides=(2,), instance_heads=True)})
    network = build_network(plan).eval()
    plain = UNet(3, 1, 6, channels=(4, 8), strides=(2,), num_res_units=2, norm="instance").eval()
    plain.load_state_dict(network.state_dict())
    image = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        assert torch.equal(network(image)["semantic"], plain(image)[:, :2])


def test_any_network_of_four_more_channels_can_be_given_heads() -> None:
    heads = SplitHeads(nn.Conv3d(1, 7, 1), n_classes=3)(torch.zeros(1, 1, 4, 4, 4))
    assert [heads[name].shape[1] for name in ("semantic", CENTER, OFFSET)] == [3, 1, 3]


def test_mirrored_offsets_point_the_other_way() -> None:
    heads = {
        "semantic": torch.rand(1, 2, 3, 4, 5),
        CENTER: torch.rand(1, 1, 3, 4, 5),
        OFFSET: torch.rand(1, 3, 3, 4, 5),
    }
    flipped = flip_heads(heads, (0, 2))
    assert torch.equal(flipped[CENTER], torch.flip(heads[CENTER], (2, 4)))
    assert torch.equal(flipped[OFFSET][:, 0], -torch.flip(heads[OFFSET], (2, 4))[:, 0])
    assert torch.equal(flipped[OFFSET][:, 1], torch.flip(heads[OFFSET], (2, 4))[:, 1])
    again = flip_heads(flipped, (0, 2))
    assert all(torch.equal(again[name], heads[name]) for name in heads)
