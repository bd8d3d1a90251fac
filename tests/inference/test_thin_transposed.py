"""Transposed convolutions with few output channels, computed as plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medseg.inference.fast_layers import fast_copy
from medseg.inference.thin_transposed import ThinTransposedConvolution, is_thin_transposed


def transposed(n_outputs: int = 2, **other: object) -> nn.ConvTranspose3d:
    torch.manual_seed(0)
    form = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, **other}
    return nn.ConvTranspose3d(5, n_outputs, **form).eval()


@pytest.mark.parametrize(("n_outputs", "bias"), [(1, True), (2, False), (15, True)])
@pytest.mark.parametrize("shape", [(1, 5, 4, 6, 3), (2, 5, 1, 2, 1)])
def test_result_is_that_of_torch(n_outputs: int, bias: bool, shape: tuple[int, ...]) -> None:
    layer = transposed(n_outputs, bias=bias)
    assert is_thin_transposed(layer)
    windows = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = ThinTransposedConvolution(layer, lambda plain: plain)(windows)
        torch.testing.assert_close(ours, layer(windows), atol=1e-5, rtol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(
    "other",
    [
        {"kernel_size": 2, "padding": 0, "output_padding": 0},
        {"stride": (2, 2, 1), "output_padding": (1, 1, 0)},
        {"output_padding": 0},
        {"n_outputs": 16},
        {"dilation": 2},
        {"groups": 5, "n_outputs": 5},
    ],
)
def test_other_forms_are_left_to_torch(other: dict[str, object]) -> None:
    assert not is_thin_transposed(transposed(**other))


@pytest.mark.parametrize(
    ("dtype", "is_winograd", "tolerance"),
    [(torch.float32, False, 1e-5), (torch.float32, True, 1e-5), (torch.bfloat16, False, 0.03)],
)
def test_a_fast_copy_takes_it_and_gives_what_the_network_gives(
    dtype: torch.dtype, is_winograd: bool, tolerance: float
) -> None:
    if is_winograd:
        pytest.importorskip("numba")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 5, 3, padding=1), nn.InstanceNorm3d(5), nn.PReLU(), transposed()).eval()
    fast = fast_copy(network, dtype, is_winograd=is_winograd)
    is_taken = any(isinstance(module, ThinTransposedConvolution) for module in fast.modules())
    assert is_taken == (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    windows = torch.randn((1, 1, 8, 8, 8))
    with torch.inference_mode():
        ours = fast(windows.to(dtype).to(memory_format=torch.channels_last_3d)).float()
        whole = network(windows)
    assert float((ours - whole).abs().max()) <= tolerance * float(whole.abs().max())
