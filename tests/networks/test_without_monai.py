"""Networks that medseg builds in MONAI's place: the same weights by the same names, and the same numbers to the bit."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch
from monai.networks import nets

from medseg.inference.activations import activation_bytes
from medseg.networks.without_monai import build_without_monai, parameters_of

UNET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
DYNUNET = {
    "spatial_dims": 3,
    "in_channels": 2,
    "out_channels": 3,
    "filters": [4, 6, 8, 10],
    "kernel_size": [3, 3, 3, 3],
    "strides": [1, 2, 2, [2, 2, 1]],
    "upsample_kernel_size": [2, 2, [2, 2, 1]],
}
SAME = {
    "a U-Net of residual units": ("UNet", {**UNET, "channels": [4, 8, 12], "strides": [2, 2], "num_res_units": 2}),
    "a plain U-Net": ("UNet", {**UNET, "channels": [4, 8, 12], "strides": [2, 2], "norm": "batch", "act": "relu"}),
    "strides and kernels for each axis": (
        "UNet",
        {
            **UNET,
            "channels": (4, 8, 12),
            "strides": ((2, 2, 1), 2),
            "num_res_units": 1,
            "dropout": 0.2,
            "kernel_size": [3, 3, 1],
            "up_kernel_size": (3, 5, 3),
            "bias": False,
            "norm": ("group", {"num_groups": 2}),
            "act": ["leakyrelu", {"negative_slope": 0.2}],
        },
    ),
    "a level that keeps its grid": (
        "UNet",
        {**UNET, "channels": [4, 4, 6], "strides": [1, 2], "num_res_units": 3, "norm": ["INSTANCE", {"affine": True}]},
    ),
    "a SegResNet": ("SegResNet", {"dropout_prob": 0.2}),
    "a SegResNet of batch norm": (
        "SegResNet",
        {
            "init_filters": 4,
            "in_channels": 2,
            "out_channels": 5,
            "norm": "BATCH",
            "act": "prelu",
            "blocks_down": [1, 2, 1],
            "blocks_up": [2, 1],
            "upsample_mode": "deconv",
        },
    ),
    "a SegResNet said the old way": ("SegResNet", {"norm_name": "group", "num_groups": 4, "blocks_down": (1, 1, 1, 1)}),
    "a DynUNet": ("DynUNet", DYNUNET),
    "a DynUNet of residual blocks": ("DynUNet", {**DYNUNET, "res_block": True, "trans_bias": True, "dropout": 0.1}),
    "a DynUNet of other kernels": (
        "DynUNet",
        {
            **DYNUNET,
            "kernel_size": [[3, 3, 1], 3, 3, 3],
            "filters": [4, 4, 6, 6, 99],
            "norm_name": "batch",
            "act_name": "relu",
            "res_block": True,
        },
    ),
    "a DynUNet of default filters": ("DynUNet", {name: value for name, value in DYNUNET.items() if name != "filters"}),
}
LEFT_TO_MONAI = {
    "2-D": ("UNet", {**UNET, "spatial_dims": 2, "channels": [4, 8], "strides": [2]}),
    "another order": ("UNet", {**UNET, "channels": [4, 8], "strides": [2], "adn_ordering": "AND"}),
    "another activation": ("UNet", {**UNET, "channels": [4, 8], "strides": [2], "act": "swish"}),
    "another norm": (
        "UNet",
        {**UNET, "channels": [4, 8], "strides": [2], "norm": ["layer", {"normalized_shape": [4]}]},
    ),
    "strides too many": ("UNet", {**UNET, "channels": [4, 8], "strides": [2, 2]}),
    "an argument unknown": ("UNet", {**UNET, "channels": [4, 8], "strides": [2], "filters": 3}),
    "no logits": ("SegResNet", {"use_conv_final": False}),
    "pixels shuffled": ("SegResNet", {"upsample_mode": "pixelshuffle"}),
    "groups that do not go into filters": ("SegResNet", {"init_filters": 4}),
    "deep supervision": ("DynUNet", {**DYNUNET, "deep_supervision": True}),
    "kernels too few": ("DynUNet", {**DYNUNET, "kernel_size": [3, 3, 3]}),
    "another network": ("VNet", {}),
}


def both(name: str, arguments: dict[str, Any]) -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(3)
    theirs = getattr(nets, name)(**arguments)
    torch.manual_seed(3)
    ours = build_without_monai(name, arguments)
    assert ours is not None
    return ours, theirs


@pytest.mark.parametrize("case", SAME)
def test_weights_have_the_names_and_shapes_that_monai_gives_them(case: str) -> None:
    ours, theirs = both(*SAME[case])
    expected = {name: values.shape for name, values in theirs.state_dict().items()}
    assert {name: values.shape for name, values in ours.state_dict().items()} == expected


@pytest.mark.parametrize("case", SAME)
@pytest.mark.parametrize("is_training", [False, True])
def test_numbers_are_those_of_monai_to_the_bit(case: str, is_training: bool) -> None:
    ours, theirs = both(*SAME[case])
    torch.manual_seed(4)
    for values in theirs.state_dict().values():  # also moments, scales and shifts, which start as 0 and 1
        if values.is_floating_point():
            values.copy_(torch.rand_like(values) + 0.1)
    ours.load_state_dict(theirs.state_dict())
    n_inputs = SAME[case][1].get("in_channels", 1)
    outputs = []
    for network in (ours.train(is_training), theirs.train(is_training)):
        torch.manual_seed(5)  # of the dropout
        outputs.append(network(torch.randn(2, n_inputs, 8, 16, 16, generator=torch.Generator().manual_seed(6))))
    assert outputs[0].std() > 0
    assert torch.equal(*outputs)


@pytest.mark.parametrize("case", [case for case, (name, _) in SAME.items() if name == "SegResNet"])
def test_gradients_are_those_of_monai(case: str) -> None:
    ours, theirs = both(*SAME[case])
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, SAME[case][1].get("in_channels", 1), 8, 16, 16, generator=torch.Generator().manual_seed(6))
    for network in (ours.train(), theirs.train()):
        torch.manual_seed(5)  # of the dropout
        network(image).square().mean().backward()
    expected = {name: weight.grad for name, weight in theirs.named_parameters()}
    for name, weight in ours.named_parameters():
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-5, atol=1e-7)


def test_a_segresnet_holds_three_maps_at_once() -> None:
    ours, _ = both("SegResNet", {"init_filters": 16, "in_channels": 1, "out_channels": 2})
    window = (32, 32, 32)
    one_map = 4 * 16 * 32**3
    assert activation_bytes(ours, 1, window, 1) < 3.5 * one_map  # two of a block and the one that it adds at its end


@pytest.mark.parametrize("case", [case for case, (name, _) in SAME.items() if name != "DynUNet"])
def test_fresh_weights_are_those_of_monai(case: str) -> None:
    ours, theirs = both(*SAME[case])
    assert all(torch.equal(values, theirs.state_dict()[name]) for name, values in ours.state_dict().items())


@pytest.mark.parametrize("case", LEFT_TO_MONAI)
def test_what_is_out_of_the_common_is_left_to_monai(case: str) -> None:
    assert build_without_monai(*LEFT_TO_MONAI[case]) is None


@pytest.mark.parametrize("name", ["UNet", "SegResNet", "DynUNet", "SwinUNETR"])
def test_arguments_are_those_of_monai(name: str) -> None:
    assert parameters_of(name) == list(inspect.signature(getattr(nets, name)).parameters)


def test_common_networks_are_built_without_importing_monai() -> None:
    code = (
        "import sys\n"
        "from medseg.networks.description import NetworkDescription, build_described\n"
        "build_described(NetworkDescription(name='SegResNet', arguments={'in_channels': 2}))\n"
        "assert not {'monai', 'pandas', 'ignite'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
