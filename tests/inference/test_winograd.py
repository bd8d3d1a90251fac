"""Winograd convolutions and pending feature maps beside torch's own layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from medseg.errors import UnsupportedOperator
from medseg.inference.candidates import Candidate
from medseg.inference.engine_torch import FastTorchEngine
from medseg.inference.fast_layers import fast_copy
from medseg.inference.warm_up import choose
from medseg.inference.winograd import WinogradConvolution, has_numba, suits_winograd
from medseg.networks.monai_segresnet import ResidualBlock, SegResNet

pytestmark = pytest.mark.skipif(not has_numba(), reason="numba is not installed")

WINOGRAD = Candidate(engine="torch", precision="float32", layers="winograd")


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


def random(*shape: int) -> torch.Tensor:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    return tensor.contiguous(memory_format=torch.channels_last_3d)


def run(network: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(*inputs)


@pytest.mark.parametrize(
    ("n_in", "n_out", "sides"),
    [
        (16, 16, (2, 2, 2)),
        (16, 48, (1, 1, 1)),
        (32, 16, (5, 4, 7)),
        (48, 32, (33, 31, 17)),
        (16, 32, (3, 64, 40)),
        (128, 128, (20, 14, 32)),
    ],
)
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.usefixtures("threads")
def test_a_winograd_convolution_is_the_convolution(
    n_in: int, n_out: int, sides: tuple[int, int, int], has_bias: bool
) -> None:
    assert_equal_to_torch(n_in, n_out, sides, has_bias=has_bias)


@pytest.mark.parametrize("sides", [(2, 2, 2), (9, 7, 11), (31, 33, 17)])
def test_an_odd_number_of_vectors_of_channels_is_multiplied_too(sides: tuple[int, int, int]) -> None:
    from medseg.inference.vectors import VECTOR

    assert_equal_to_torch(2 * VECTOR, 3 * VECTOR, sides)


def assert_equal_to_torch(n_in: int, n_out: int, sides: tuple[int, int, int], *, has_bias: bool = True) -> None:
    """Up to rounding, for two windows of those sides."""
    torch.manual_seed(0)
    layer = nn.Conv3d(n_in, n_out, 3, padding=1, bias=has_bias)
    assert suits_winograd(layer)
    windows = random(2, n_in, *sides)
    truth = run(layer.double(), windows.double())
    found = run(WinogradConvolution(layer.float()), windows)
    assert found.shape == truth.shape
    assert float((found - truth).abs().max() / truth.std()) < 3e-5


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(1, 16, 3, padding=1),
        nn.Conv3d(17, 16, 3, padding=1),
        nn.Conv3d(16, 16, 3, padding=0),
        nn.Conv3d(16, 16, 3, padding=1, stride=2),
        nn.Conv3d(16, 16, 3, padding=2, dilation=2),
        nn.Conv3d(16, 16, 3, padding=1, groups=2),
        nn.Conv3d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv3d(16, 16, (1, 3, 3), padding=(0, 1, 1)),
        nn.Conv3d(16, 16, 1),
    ],
)
def test_other_convolutions_are_left_to_torch(layer: nn.Conv3d) -> None:
    assert not suits_winograd(layer)


class Skips(nn.Module):
    """Every way in which a pending map is read: by a convolution, after a concatenation, added, pooled, indexed."""

    def __init__(self, norm: Callable[[int], nn.Module], activation: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.act = nn.Conv3d(16, 32, 3, padding=1), norm(32), activation
        self.second, self.last = nn.Conv3d(48, 16, 3, padding=1), nn.Conv3d(16, 2, 1)
        self.other = norm(16)
        for layer in (self.norm, self.other):
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.uniform_(layer.bias, -1, 1)
            if getattr(layer, "running_mean", None) is not None:
                layer.running_mean.uniform_(-1, 1)
                layer.running_var.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.norm(self.first(x)))
        z = self.other(self.second(torch.cat([y, x], dim=1)))
        z = 2.0 * z + nn.functional.avg_pool3d(z, 3, 1, 1) - z[:, :1]
        return self.last(self.act(z)) + y.mean(1, keepdim=True) + y.shape[1] + y.size(2)


@pytest.mark.parametrize("norm", [partial(nn.InstanceNorm3d, affine=True), nn.BatchNorm3d, partial(nn.GroupNorm, 8)])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.01, inplace=True), nn.PReLU(), nn.ELU()])
@pytest.mark.usefixtures("threads")
def test_pending_maps_are_what_torch_computes(norm: Callable[[int], nn.Module], activation: nn.Module) -> None:
    torch.manual_seed(1)
    network = Skips(norm, activation).eval()
    windows = random(2, 16, 7, 9, 8)
    truth = run(network, windows)
    found = FastTorchEngine(network, "float32", is_winograd=True)(windows)["semantic"]
    assert float((found - truth).norm() / truth.norm()) < 1e-5


@pytest.mark.parametrize("dim", [0, 2, -1])
def test_only_channels_are_joined_without_a_copy(dim: int) -> None:
    from medseg.inference.pending import Part, Pending

    one = Pending([Part(np.ones((2, 3, 4, 8), np.float32))])
    joined = torch.cat([one, random(1, 8, 2, 3, 4)], dim=dim)
    assert isinstance(joined, torch.Tensor)
    assert joined.shape[dim] == 2 * one.shape[dim]
    assert isinstance(torch.cat([one, random(1, 8, 2, 3, 4)], dim=1), Pending)


def test_instance_norm_far_from_zero_keeps_its_digits() -> None:
    from medseg.inference.pending import PendingNorm

    windows = random(1, 16, 12, 40, 40) + 3000.0
    truth = run(nn.InstanceNorm3d(16).double(), windows.double())
    found = run(PendingNorm(nn.InstanceNorm3d(16)), windows)
    assert float((found.finished() - truth).abs().max()) < 2e-3  # 3000 has steps of 2.4e-4 in float32


def test_group_norm_of_a_large_window_keeps_its_digits() -> None:
    from medseg.inference.pending import PendingNorm

    windows = 3 + random(1, 16, 96, 96, 48)
    truth = run(nn.GroupNorm(8, 16).double(), windows.double())
    found = run(PendingNorm(nn.GroupNorm(8, 16)), windows)
    assert float((found.finished() - truth).abs().max()) < 5e-6  # torch's own, channels-last: 2e-3


class UsesBoth(nn.Module):
    """Reads the input of its normalization once more after it, as residual blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv3d(1, 16, 3, padding=1), nn.InstanceNorm3d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y).abs() + 3.0 * y


@pytest.mark.parametrize("last", [nn.GroupNorm(4, 16), nn.Sequential(nn.InstanceNorm3d(16), nn.ReLU())])
def test_a_network_may_end_with_what_is_left_pending(last: nn.Module) -> None:
    torch.manual_seed(2)
    network, windows = nn.Sequential(nn.Conv3d(1, 16, 3, padding=1), last).eval(), random(1, 1, 12, 12, 12)
    found = FastTorchEngine(network, "float32", is_winograd=True)(windows)["semantic"]
    assert float((found - run(network, windows)).abs().max()) < 1e-5


def test_what_is_normalized_stays_for_other_readers() -> None:
    torch.manual_seed(2)
    network, windows = UsesBoth().eval(), random(1, 1, 12, 12, 12)
    found = FastTorchEngine(network, "float32", is_winograd=True)(windows)["semantic"]
    assert float((found - run(network, windows)).abs().max()) < 1e-4


def test_the_warm_up_takes_the_winograd_layers_only_if_they_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medseg.inference.warm_up._NOT_WORTH_IT_S", -1.0)
    network = Skips(nn.BatchNorm3d, nn.ReLU()).eval()
    assert choose(network, [WINOGRAD], (16, 12, 12, 12)).candidate == WINOGRAD
    monkeypatch.setattr(
        "medseg.inference.winograd._TRANSFORM", ((1.0, 0, 0), (0.6, 0.5, 0.5), (0.5, 0, 0.5), (0, 0, 1))
    )
    with pytest.raises(UnsupportedOperator, match="winograd layers differs from plain float32 torch"):
        choose(network, [WINOGRAD], (16, 12, 12, 12))


@pytest.mark.parametrize("width", [8, 16])  # too few channels for Winograd's convolutions, and enough
@pytest.mark.parametrize("n_windows", [1, 2])
@pytest.mark.usefixtures("threads")
def test_a_segresnet_whose_blocks_add_in_place_is_the_segresnet(width: int, n_windows: int) -> None:
    torch.manual_seed(4)
    network = SegResNet(init_filters=width, in_channels=2, out_channels=3, blocks_down=(2, 1, 2), blocks_up=(2, 1))
    windows = random(n_windows, 2, 12, 20, 16)
    truth = run(network.eval(), windows)
    kept = windows.clone()
    found = run(fast_copy(network, torch.float32, is_winograd=True), windows)
    assert float((found - truth).norm() / truth.norm()) < 1e-5
    assert torch.equal(windows, kept)


def test_a_residual_block_adds_where_its_input_lies() -> None:
    torch.manual_seed(5)
    block = ResidualBlock(16, ("GROUP", {"num_groups": 8}), "RELU").eval()
    features = random(1, 16, 5, 6, 7)
    truth = run(block, features)
    found = run(fast_copy(block, torch.float32, is_winograd=True), features)
    assert found.data_ptr() == features.data_ptr()
    assert float((found - truth).abs().max()) < 1e-5
