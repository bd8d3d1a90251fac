"""Deep supervision: outputs of lower resolutions, which are trained too and are gone when training ends.

References
----------
Lee et al., Deeply-supervised nets, AISTATS 2015; Isensee et al., nnU-Net, Nature Methods 2021 (every resolution of the
decoder but the lowest).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from medseg.core.plan import Plan
from medseg.errors import InvalidPlan

__all__ = ["Supervised", "supervised"]


class Supervised(nn.Module):
    """A network, unchanged, and a 1x1 convolution to logits from what each lower level of its decoder gives.

    Parameters
    ----------
    network
        A member, as `medseg.networks.build.build_member` makes it.
    levels
        Modules of it that give the features of the lower levels, the highest resolution first, and their channels.
    n_outputs
        Logits: classes and background.
    """

    def __init__(self, network: nn.Module, levels: list[tuple[nn.Module, int]], n_outputs: int) -> None:
        super().__init__()
        self.network = network
        self.heads = nn.ModuleList(nn.Conv3d(n_features, n_outputs, 1) for _, n_features in levels)
        self._features: dict[int, torch.Tensor] = {}
        for number, (level, _) in enumerate(levels):
            level.register_forward_hook(self._keeper(number))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor | dict[str, torch.Tensor], list[torch.Tensor]]:
        """What the network gives for an image (B, C, I, J, K), and the logits (B, N, i, j, k) of lower resolutions."""
        own = self.network(image)
        lower = [head(self._features.pop(number)) for number, head in enumerate(self.heads)]
        return own, lower

    def _keeper(self, number: int) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def keep(_module: nn.Module, _given: Any, features: torch.Tensor) -> None:
            self._features[number] = features

        return keep


def supervised(network: nn.Module, plan: Plan) -> Supervised:
    """A member of a plan's network with fresh heads at its lower resolutions.

    Raises
    ------
    InvalidPlan
        If the network has only two levels: there is none between the highest resolution and the lowest.
    """
    levels = _levels(network, plan)
    if not levels:
        raise InvalidPlan(
            f"plan {plan.name}: training.deep_supervision needs a network of three levels or more; this one has "
            f"{len(plan.network.filters)}"
        )
    return Supervised(network, levels, plan.labels.highest + 1)


def _levels(network: Any, plan: Plan) -> list[tuple[nn.Module, int]]:
    """What gives the features of each level of the decoder between the highest and the lowest, and their channels."""
    filters = plan.network.filters
    if plan.network.kind == "unet":  # a block holds the next level's block, which gives features of its own width
        blocks, block = [], network.model[1].submodule
        for _ in filters[2:]:
            blocks.append(block)
            block = block[1].submodule
        return list(zip(blocks, filters[:-2], strict=True))
    upward = network.decoder.stages if plan.network.is_nnunet else network.up_layers
    return list(zip(list(upward)[-2::-1], filters[1:-1], strict=True))
