"""Several networks as one: the mean of their logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

__all__ = ["MeanOfNetworks", "joined_weights"]


class MeanOfNetworks(nn.ModuleList):
    """Networks of one shape side by side, trained from different seeds; their mean errs less than each.

    References
    ----------
    Lakshminarayanan et al., Simple and scalable predictive uncertainty estimation using deep ensembles, NeurIPS 2017.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, I, J, K) for an image (B, C, I, J, K)."""
        total: torch.Tensor = self[0](image)
        for member in self[1:]:
            total = total + member(image)
        return total / len(self)


def joined_weights(members: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The state dict of `MeanOfNetworks` from those of its members."""
    return {f"{number}.{name}": tensor for number, weights in enumerate(members) for name, tensor in weights.items()}
