"""Test-time mirroring: the mean of a network's logits over mirrored copies of its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch

__all__ = ["mirrored"]

Predictor = Callable[[torch.Tensor], torch.Tensor]


def mirrored(predict: Predictor, axes: Sequence[int]) -> Predictor:
    """A predictor that averages over all combinations of mirrored axes (2 to the power of their number calls).

    Parameters
    ----------
    predict
        From (B, C, I, J, K) to logits (B, N, I, J, K).
    axes
        Spatial axes 0, 1, 2; none returns `predict` itself.
    """
    if not axes:
        return predict
    flips = [[axis + 2 for axis in chosen] for n in range(len(axes) + 1) for chosen in combinations(sorted(axes), n)]

    def predict_mean(window: torch.Tensor) -> torch.Tensor:
        total = predict(window)
        for dims in flips[1:]:
            total = total + torch.flip(predict(torch.flip(window, dims)), dims)
        return total / len(flips)

    return predict_mean
