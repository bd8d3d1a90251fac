"""Normalizations and rectifiers that change what only they read where it lies."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from medseg.inference.fast_layers import fast_copy
from medseg.models.nnunet_plans import architecture_of
from medseg.networks.monai_dynunet import DynUNet
from medseg.networks.monai_unet import UNet
from medseg.networks.nnunet import NnunetNetwork
from tests.nnunet_folders import architecture

WINDOW = torch.randn((1, 3, 16, 16, 16), generator=torch.Generator().manual_seed(3))


def row(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), *layers).eval()


def unet(**other: object) -> nn.Module:
    torch.manual_seed(0)
    form = {"channels": (4, 8, 16), "strides": (2, 2), "num_res_units": 2, **other}
    return UNet(spatial_dims=3, in_channels=3, out_channels=2, **form).eval()


def dynunet(*, res_block: bool) -> DynUNet:
    torch.manual_seed(0)
    return DynUNet(3, 3, 2, [3, 3, 3], [1, 2, 2], [2, 2], [4, 8, 8], res_block=res_block).eval()


def nnunet(kind: str, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    described = architecture_of({"architecture": architecture(3, kind, **changes)}, 3, 2, Path("plans.json"))
    return NnunetNetwork(described).eval()


def n_overwriting(network: nn.Module) -> tuple[int, int]:
    """Instance normalizations that write over what they read, and those that do not."""
    norms = [module for module in network.modules() if isinstance(module, nn.InstanceNorm3d)]
    n = sum(getattr(norm, "overwrites", False) for norm in norms)
    return n, len(norms) - n


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "norm": lambda: row(nn.InstanceNorm3d(6, affine=True)),
    "norm and rectifier": lambda: row(nn.InstanceNorm3d(6), nn.LeakyReLU(0.1)),
    "rectifier first": lambda: row(nn.PReLU(init=0.3), nn.Dropout3d(), nn.InstanceNorm3d(6)),
    "slope for each channel": lambda: row(nn.InstanceNorm3d(6), nn.PReLU(6)),
    "unet": unet,
    "unet without units": lambda: unet(num_res_units=0),
    "dynunet": lambda: dynunet(res_block=False),
    "residual dynunet": lambda: dynunet(res_block=True),
    "nnU-Net": lambda: nnunet("PlainConvUNet"),
    "nnU-Net, rectifier first": lambda: nnunet("PlainConvUNet", nonlin_first=True),
    "nnU-Net, residual encoder": lambda: nnunet("ResidualEncoderUNet"),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06)])
def test_the_result_stays_and_so_do_network_and_window(name: str, dtype: torch.dtype, tolerance: float) -> None:
    network = NETWORKS[name]()
    before = [tensor.clone() for tensor in network.state_dict().values()]
    fast = fast_copy(network, dtype)
    assert n_overwriting(fast) == (sum(n_overwriting(network)), 0)
    assert n_overwriting(network)[0] == 0
    window = WINDOW.to(dtype, copy=True)
    with torch.inference_mode():
        given = window.contiguous(memory_format=torch.channels_last_3d)
        kept = given.clone()
        ours, again, whole = fast(given).float(), fast(given).float(), network(WINDOW)
    torch.testing.assert_close(given, kept, rtol=0, atol=0)
    torch.testing.assert_close(ours, again, rtol=0, atol=0)
    assert float((ours - whole).abs().max()) <= tolerance * float(whole.abs().max())
    for now, then in zip(network.state_dict().values(), before, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0)


def test_memory_is_not_taken_twice() -> None:
    fast = fast_copy(row(nn.InstanceNorm3d(6), nn.PReLU()), torch.float32)
    assert isinstance(fast, nn.Sequential)
    convolution, *others = fast
    with torch.inference_mode():
        features = convolution(WINDOW)
        for layer in others:
            assert layer(features).data_ptr() == features.data_ptr()


def test_a_dynunet_gives_its_maps_back_once_they_are_concatenated() -> None:
    network = dynunet(res_block=True)
    maps: list[weakref.ref[torch.Tensor]] = []
    n_alive: list[int] = []
    for block in (network.input_block, *network.downsamples):
        block.register_forward_hook(lambda _block, _given, result: maps.append(weakref.ref(result)))
    for up in network.upsamples:
        up.conv_block.register_forward_pre_hook(lambda *_: n_alive.append(sum(ref() is not None for ref in maps)))
    with torch.inference_mode():
        network(WINDOW)
    assert len(maps) == 2
    assert n_alive == [1, 0]  # that of the higher level, then none


class KeepsBoth(nn.Module):
    """What the convolution gives is read by the normalization and by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv3d(3, 6, 3), nn.InstanceNorm3d(6)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.conv(image)
        return self.norm(features) + features


class Twice(nn.Module):
    """One normalization behind a convolution, and again behind something else."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.InstanceNorm3d(6)
        self.first, self.second = nn.Sequential(nn.Conv3d(3, 6, 3), norm), nn.Sequential(nn.Hardtanh(), norm)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.first(image)
        return self.second(first) + first


def hooked() -> nn.Module:
    network = row(nn.InstanceNorm3d(6))
    network[0].register_forward_hook(lambda _module, _given, result: result * 1.0)
    return network


@pytest.mark.parametrize(
    "make",
    [
        KeepsBoth,
        Twice,
        hooked,
        lambda: nn.Sequential(nn.InstanceNorm3d(3), nn.Conv3d(3, 6, 3)),
        lambda: row(nn.Hardtanh(), nn.InstanceNorm3d(6)),
        lambda: row(nn.InstanceNorm3d(6, track_running_stats=True)),
    ],
)
def test_what_others_may_read_is_left(make: Callable[[], nn.Module]) -> None:
    network = make().eval()
    fast = fast_copy(network, torch.float32)
    assert n_overwriting(fast)[0] == 0
    with torch.inference_mode():
        torch.testing.assert_close(fast(WINDOW), network(WINDOW), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [lambda: nn.InstanceNorm3d(16, affine=True), lambda: nn.GroupNorm(4, 16)])
@pytest.mark.parametrize("sides", [(96, 96, 48), (3, 200, 210), (5, 2, 1)])
@pytest.mark.parametrize("is_behind_a_convolution", [True, False])
def test_normalization_of_a_large_window_keeps_its_digits(
    make: Callable[[], nn.Module], sides: tuple[int, int, int], is_behind_a_convolution: bool
) -> None:
    torch.manual_seed(0)
    layer = make()
    nn.init.uniform_(layer.weight, 0.5, 2)
    nn.init.uniform_(layer.bias, -1, 1)
    before = nn.Conv3d(16, 16, 1)
    with torch.no_grad():  # what it gives has a mean of 3 standard deviations
        before.weight.copy_(torch.eye(16).view(16, 16, 1, 1, 1))
        before.bias.fill_(3.0)
    network = nn.Sequential(before, layer) if is_behind_a_convolution else nn.Sequential(layer)
    window = torch.randn(1, 16, *sides) + (0 if is_behind_a_convolution else 3)
    rows = window.double() + (3 if is_behind_a_convolution else 0)
    groups = rows.view(getattr(layer, "num_groups", 16), -1)
    spread = (groups - groups.mean(1, keepdim=True)) / (groups.var(1, unbiased=False, keepdim=True) + layer.eps).sqrt()
    truth = spread.view_as(rows) * layer.weight.view(-1, 1, 1, 1) + layer.bias.view(-1, 1, 1, 1)
    with torch.inference_mode():
        found = fast_copy(network.eval(), torch.float32)(window.contiguous(memory_format=torch.channels_last_3d))
    assert float((found - truth.detach()).abs().max()) < 2e-5  # torch's own kernels, channels-last: 3e-3
