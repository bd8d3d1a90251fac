"""Convolutions that take in the batch normalization and the rectifier behind them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from medseg.inference.fast_layers import fast_copy
from medseg.inference.fused_convolution import OneDnnConvolution
from medseg.networks.layers import Convolution
from medseg.networks.monai_dynunet import DynUNet
from medseg.networks.monai_unet import UNet

WINDOW = torch.randn((1, 3, 8, 10, 12), generator=torch.Generator().manual_seed(5))


def with_moments(network: nn.Module) -> nn.Module:
    """Batch normalization as training leaves it: no moment and no weight is 0 or 1."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 3.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 2.0)
                nn.init.normal_(module.bias)
    return network.eval()


def counted(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


def assert_same(network: nn.Module, copied: nn.Module, window: torch.Tensor = WINDOW) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(copied(window), network(window), atol=2e-5, rtol=1e-5)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "affine": nn.BatchNorm3d,
    "plain": lambda n: nn.BatchNorm3d(n, affine=False, eps=1e-3),
}
RECTIFIERS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.3),
    "prelu": lambda: nn.PReLU(init=-0.4),
}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("rectifier", RECTIFIERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transposed", [None, 4, 20])
def test_both_are_taken_in_and_the_result_stays(norm: str, rectifier: str, bias: bool, transposed: int | None) -> None:
    torch.manual_seed(0)
    if transposed is None:
        first: nn.Module = nn.Conv3d(3, 7, 3, stride=(2, 1, 1), padding=1, bias=bias)
    else:  # 4 channels are computed as a plain convolution
        first = nn.ConvTranspose3d(3, transposed, 3, stride=2, padding=1, output_padding=1, bias=bias)
    n_channels = 7 if transposed is None else transposed
    network = with_moments(nn.Sequential(first, NORMS[norm](n_channels), nn.Dropout(0.5), RECTIFIERS[rectifier]()))
    copied = fast_copy(network, torch.float32)
    assert_same(network, copied)
    assert counted(copied, nn.BatchNorm3d) == counted(copied, type(RECTIFIERS[rectifier]())) == 0
    assert counted(copied, OneDnnConvolution) == 1


@pytest.mark.parametrize(("filters", "n_units"), [((8, 16, 32), 2), ((4, 8, 8), 0)])
def test_a_unet_keeps_no_batch_normalization(filters: tuple[int, ...], n_units: int) -> None:
    torch.manual_seed(0)
    network = with_moments(UNet(3, 3, 2, filters, (2, 2), num_res_units=n_units, norm="batch", dropout=0.1))
    copied = fast_copy(network, torch.float32)
    window = torch.randn((1, 3, 16, 16, 24), generator=torch.Generator().manual_seed(6))
    assert_same(network, copied, window)
    assert counted(network, nn.BatchNorm3d) > 0
    assert counted(copied, nn.BatchNorm3d) == 0


class _Apart(nn.Module):
    """Runs the steps of a sequence one by one, and needs what lies between."""

    def __init__(self, *steps: nn.Module) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        between = self.steps[0](image)
        result: torch.Tensor = between + self.steps[1](between)
        return result


class _Twice(nn.Module):
    """One module in two sequences, with something else behind it in each."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.first = nn.Sequential(shared, nn.BatchNorm3d(3), nn.ReLU())
        self.second = nn.Sequential(shared, nn.LeakyReLU(0.2))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(self.first(image))
        return result


class _Own(nn.Sequential):
    """A sequence that does something else on the way."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first, second = self
        result: torch.Tensor = second(first(image) * 2.0 + 1.0)
        return result


def _observed() -> nn.Module:
    network = nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4))
    network[0].register_forward_hook(lambda _module, _inputs, output: output * 2.0)
    return network


@pytest.mark.parametrize(
    "make",
    [
        lambda: _Apart(nn.Conv3d(3, 3, 1), nn.BatchNorm3d(3)),
        lambda: _Twice(nn.Conv3d(3, 3, 3, padding=1)),
        lambda: _Twice(nn.Sequential(nn.Conv3d(3, 3, 3, padding=1))),
        lambda: _Own(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)),
        _observed,
        lambda: nn.Sequential(nn.Conv3d(3, 6, 3, groups=3), nn.BatchNorm3d(6)),
        lambda: nn.Sequential(nn.BatchNorm3d(3), nn.Conv3d(3, 4, 3)),
        lambda: nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4, track_running_stats=False)),
    ],
    ids=["apart", "twice", "twice within", "own", "hooked", "groups", "before", "momentless"],
)
def test_what_is_not_surely_next_stays(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network = with_moments(make())
    copied = fast_copy(network, torch.float32)
    assert counted(copied, nn.BatchNorm3d) == counted(network, nn.BatchNorm3d)
    assert_same(network, copied)


@pytest.mark.parametrize("n_around", [0, 1, 2])
def test_what_comes_after_a_rectifier_is_not_folded_before_it(n_around: int) -> None:
    """Also where sequences around it make a second and a third row of the same layers."""
    torch.manual_seed(0)
    network: nn.Module = nn.Sequential(nn.Conv3d(3, 7, 3), nn.ReLU(), nn.BatchNorm3d(7), nn.LeakyReLU(0.4))
    for _ in range(n_around):
        network = nn.Sequential(network)
    copied = fast_copy(with_moments(network), torch.float32)
    assert counted(copied, nn.BatchNorm3d) == 1
    assert counted(copied, nn.LeakyReLU) == 1
    assert_same(network, copied)


def test_blocks_that_name_their_rows_keep_no_batch_normalization() -> None:
    torch.manual_seed(0)
    network = with_moments(DynUNet(3, 3, 2, [3] * 3, [1, 2, 2], [2, 2], [4, 8, 8], norm_name="batch", res_block=True))
    assert counted(network, nn.BatchNorm3d) == 13
    copied = fast_copy(network, torch.float32)
    assert counted(copied, nn.BatchNorm3d) == 0
    assert_same(network, copied, torch.randn((1, 3, 8, 16, 12), generator=torch.Generator().manual_seed(2)))


def test_a_rectifier_with_a_slope_for_each_channel_stays() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(3, 4, 3), nn.PReLU(4)).eval()
    nn.init.uniform_(network[1].weight)
    copied = fast_copy(network, torch.float32)
    assert counted(copied, nn.PReLU) == 1
    assert_same(network, copied)


def test_the_network_itself_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    network = with_moments(Convolution(3, 4, norm="batch", act="prelu"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fast_copy(network, torch.float32)
    assert counted(network, nn.BatchNorm3d) == counted(network, nn.PReLU) == 1
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=0, rtol=0)
