"""Layers that train sooner on a CPU, beside torch's own in double precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from medseg.inference.winograd import has_numba
from medseg.networks.monai_segresnet import SegResNet
from medseg.networks.monai_unet import UNet

pytestmark = pytest.mark.skipif(not has_numba(), reason="numba is not installed")


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def quickened(network: nn.Module) -> nn.Module:
    from medseg.training.cpu_layers import quicken

    copied = deepcopy(network).to(memory_format=torch.channels_last_3d)
    quicken(copied)
    return copied.train()


def random(*shape: int) -> torch.Tensor:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    return tensor.contiguous(memory_format=torch.channels_last_3d)


def trained(network: nn.Module, windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """The result, and the gradients of all parameters and of the windows, for a loss that weighs each voxel."""
    windows = windows.clone().requires_grad_()
    found = network(windows)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    (found * weights.to(found.dtype) + 0.3 * found.square()).sum().backward()
    assert windows.grad is not None
    gradients = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    return {"result": found.detach(), "windows": windows.grad, **gradients}


def worst(found: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> float:
    """The largest difference, relative to the largest number of its tensor."""
    assert found.keys() == truth.keys()
    return max(float((found[name] - truth[name]).abs().max() / truth[name].abs().max()) for name in truth)


NORMS = [
    nn.InstanceNorm3d,
    partial(nn.InstanceNorm3d, affine=True),
    lambda n: nn.GroupNorm(2, n),
]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "act", [None, nn.ReLU(inplace=True), nn.LeakyReLU(0.1), nn.PReLU(), nn.PReLU(6), nn.ELU(inplace=True)]
)
@pytest.mark.parametrize("n_channels", [6, 40])
@pytest.mark.usefixtures("threads")
def test_a_normalization_and_what_follows_are_torchs(
    norm: Callable[[int], nn.Module], act: nn.Module | None, n_channels: int
) -> None:
    torch.manual_seed(0)
    if isinstance(act, nn.PReLU) and act.num_parameters > 1:
        act = nn.PReLU(n_channels)
        nn.init.uniform_(act.weight, -0.5, 0.5)
    network = nn.Sequential(norm(n_channels), *([] if act is None else [deepcopy(act)]))
    for name, parameter in network[0].named_parameters():
        nn.init.uniform_(parameter, 0.5 if name == "weight" else -1, 2)
    windows = 2 + 3 * random(2, n_channels, 5, 7, 6)
    truth = trained(deepcopy(network).double(), windows.double())
    assert worst(trained(quickened(network), windows), truth) < 1e-5


@pytest.mark.parametrize(
    ("n_in", "n_out", "sides"), [(16, 16, (13, 12, 15)), (48, 32, (16, 9, 17)), (16, 48, (14, 14, 14))]
)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.usefixtures("threads")
def test_a_convolution_is_torchs_forth_and_back(
    n_in: int, n_out: int, sides: tuple[int, int, int], has_bias: bool
) -> None:
    from medseg.training import cpu_layers

    torch.manual_seed(1)
    layer = nn.Conv3d(n_in, n_out, 3, padding=1, bias=has_bias)
    windows = random(2, n_in, *sides)
    quick = quickened(layer)
    assert type(quick) is not nn.Conv3d
    assert windows[0, 0].numel() >= cpu_layers._LEAST_VOXELS
    assert worst(trained(quick, windows), trained(deepcopy(layer).double(), windows.double())) < 1e-5


def test_a_small_map_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.training.cpu_layers.Winograd", None)
    layer, windows = nn.Conv3d(16, 16, 3, padding=1), random(2, 16, 4, 4, 4)
    truth = trained(deepcopy(layer).double(), windows.double())
    assert worst(trained(quickened(layer), windows), truth) < 1e-5


NETWORKS = {
    "unet": lambda: UNet(3, 1, 2, channels=(16, 32, 32), strides=(1, 2), num_res_units=2),
    "unet with dropout": lambda: UNet(3, 1, 2, channels=(16, 32), strides=(2,), num_res_units=1, dropout=0.2),
    "segresnet": lambda: SegResNet(init_filters=16, in_channels=1, out_channels=2, blocks_down=(1, 2), blocks_up=(1,)),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.usefixtures("threads")
def test_a_network_trains_as_torch_trains_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn.Dropout, "forward", dropped)
    torch.manual_seed(2)
    network, windows = NETWORKS[kind]().train(), random(2, 1, 16, 16, 16)
    quick = quickened(network)
    assert quick.state_dict().keys() == network.state_dict().keys()
    truth = trained(deepcopy(network).double(), windows.double())
    is_telling = [name for name in truth if truth[name].abs().max() > 1e-6]  # not biases before a normalization
    ours, torchs, exact = (
        {name: one[name] for name in is_telling} for one in (trained(quick, windows), trained(network, windows), truth)
    )
    assert worst(ours, exact) < max(1e-4, 3 * worst(torchs, exact))


def dropped(layer: nn.Dropout, features: torch.Tensor) -> torch.Tensor:
    """A dropout that drops the same of every map of a shape, however it lies in memory."""
    is_kept = torch.rand(features.shape, generator=torch.Generator().manual_seed(5)) >= layer.p
    return features * is_kept / (1 - layer.p)


def test_what_is_watched_or_stands_twice_is_left_alone() -> None:
    shared = nn.PReLU()
    network = nn.Sequential(
        nn.Sequential(nn.InstanceNorm3d(8), shared), nn.Sequential(nn.InstanceNorm3d(8), shared), nn.InstanceNorm3d(8)
    )
    network[2].register_forward_hook(lambda *_: None)
    quick = quickened(network)
    assert type(quick[2]) is nn.InstanceNorm3d
    assert type(quick[0][1]) is nn.PReLU
    windows = random(2, 8, 5, 6, 7)
    assert worst(trained(quick, windows), trained(deepcopy(network).double(), windows.double())) < 1e-5


def test_running_moments_are_left_to_torch() -> None:
    network = nn.Sequential(nn.InstanceNorm3d(8, track_running_stats=True), nn.ReLU())
    assert type(quickened(network)[0]) is nn.InstanceNorm3d
