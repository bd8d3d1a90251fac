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

    def forward(self, image: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """Logits (B, N, I, J, K), or heads by name, for an image (B, C, I, J, K)."""
        outputs = [member(image) for member in self]
        if isinstance(outputs[0], dict):
            return {name: _mean([output[name] for output in outputs]) for name in outputs[0]}
        return _mean(outputs)


def _mean(values: Sequence[torch.Tensor]) -> torch.Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total / len(values)


def joined_weights(members: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The state dict of `MeanOfNetworks` from those of its members."""
    return {f"{number}.{name}": tensor for number, weights in enumerate(members) for name, tensor in weights.items()}
