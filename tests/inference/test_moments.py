import numpy as np
import pytest
import torch

from medseg.inference.moments import grouped, moments_in_pieces


@pytest.mark.parametrize("shape", [(1, 4, 1, 1, 1), (1, 3, 7, 5, 4), (1, 2, 37, 64, 61), (1, 2, 3, 130, 140)])
def test_pieces_add_up_to_the_moments_of_the_whole(shape: tuple[int, ...]) -> None:
    random = (
        torch.randn(shape, generator=torch.Generator().manual_seed(5)) * torch.linspace(1, 9, shape[2])[:, None, None]
    )
    window = (random + 300).contiguous(memory_format=torch.channels_last_3d)  # a mean that float32 sums would lose to
    mean, variance = moments_in_pieces(window)
    exact = window.double().numpy()[0].reshape(shape[1], -1)
    np.testing.assert_allclose(mean, exact.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var(axis=1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("n_groups", [1, 2, 6])
def test_groups_have_the_moments_of_their_channels_together(n_groups: int) -> None:
    values = np.random.default_rng(2).normal(3, 2, (6, 500)) + np.arange(6)[:, None]
    mean, variance = grouped(values.mean(axis=1), values.var(axis=1), n_groups)
    together = values.reshape(n_groups, -1)
    np.testing.assert_allclose(mean, np.repeat(together.mean(axis=1), 6 // n_groups))
    np.testing.assert_allclose(variance, np.repeat(together.var(axis=1), 6 // n_groups))
