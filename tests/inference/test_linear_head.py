"""Networks taken apart into body and last convolution, and those that must not be."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DynUNet, SegResNet, SwinUNETR, UNet
from torch import nn

from medseg.inference.linear_head import split_linear_head


def seg_res_net() -> nn.Module:
    return SegResNet(spatial_dims=3, init_filters=8, in_channels=2, out_channels=25)


def dyn_u_net() -> nn.Module:
    return DynUNet(3, 2, 40, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 16, 32], deep_supervision=True)


def swin_unetr() -> nn.Module:
    return SwinUNETR(in_channels=2, out_channels=30, feature_size=12)


@pytest.mark.parametrize(
    ("make", "n_outputs", "n_features"), [(seg_res_net, 25, 8), (dyn_u_net, 40, 8), (swin_unetr, 30, 12)]
)
def test_body_and_head_are_the_network(make: object, n_outputs: int, n_features: int) -> None:
    torch.manual_seed(0)
    network = make().eval()
    before = list(network.state_dict())
    body, head = split_linear_head(network, 2, n_outputs, (32, 64))
    assert head.n_features == n_features
    window = torch.randn((1, 2, 64, 64, 64))
    with torch.inference_mode():
        ours = head(body.eval()(window).movedim(1, -1)).movedim(-1, 1)
        torch.testing.assert_close(ours, network(window), atol=1e-4, rtol=1e-4)
    assert list(network.state_dict()) == before
    shared = {parameter.data_ptr() for parameter in network.parameters()}
    assert {parameter.data_ptr() for parameter in body.parameters()} <= shared


def test_a_head_that_gives_no_more_than_it_reads_stays_where_it_is() -> None:
    network = SegResNet(spatial_dims=3, init_filters=8, in_channels=1, out_channels=3).eval()
    assert split_linear_head(network, 1, 3, (32,)) is None


def test_a_network_that_goes_on_after_its_last_pointwise_convolution_is_left_whole() -> None:
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 9, 1), nn.ReLU()).eval()
    assert split_linear_head(network, 1, 9, (8,)) is None


def test_a_network_that_ends_otherwise_is_left_whole() -> None:
    assert split_linear_head(UNet(3, 1, 20, (8, 16), (2,)).eval(), 1, 20, (16,)) is None


def test_a_network_that_takes_none_of_the_sizes_is_left_whole() -> None:
    network = SegResNet(spatial_dims=3, init_filters=8, in_channels=1, out_channels=25).eval()
    assert split_linear_head(network, 1, 25, (3,)) is None


def test_the_networks_mode_stays_what_it_was() -> None:
    network = seg_res_net().train()
    assert split_linear_head(network, 2, 25, (32,)) is not None
    assert network.training
