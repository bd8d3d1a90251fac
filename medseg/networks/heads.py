"""Instance heads of a network: beside the class of each voxel, where lesions have their centers, and the way there.

Three heads come out as a dictionary: "semantic" logits, "center" (1 at the center of a lesion, falling off as a
Gaussian), "offset" (vector from a voxel to the center of its lesion, in millimeters along the axes of the grid).
All three may be averaged over windows, flips (`flip_heads`) and networks.

References
----------
Cheng et al., Panoptic-DeepLab, CVPR 2020 (center heatmap and offsets beside semantic classes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

__all__ = [
    "CENTER",
    "HEAD_PREFIX",
    "JoinedHeads",
    "N_HEAD_CHANNELS",
    "OFFSET",
    "OFFSET_UNIT_MM",
    "SEMANTIC",
    "SplitHeads",
    "as_named_heads",
    "flip_heads",
]

SEMANTIC, CENTER, OFFSET = "semantic", "center", "offset"
N_HEAD_CHANNELS = 4
HEAD_PREFIX = "instance_"  # of all parameters of a branch of its own

OFFSET_UNIT_MM = 10.0  # so that what the network gives is of order 1


def as_named_heads(output: torch.Tensor, n_classes: int) -> dict[str, torch.Tensor]:
    """Channels (B, N + 4, I, J, K) as heads: N logits, center, offset in millimeters."""
    return {
        SEMANTIC: output[:, :n_classes],
        CENTER: output[:, n_classes : n_classes + 1],
        OFFSET: output[:, n_classes + 1 :] * OFFSET_UNIT_MM,
    }


def flip_heads(heads: Mapping[str, torch.Tensor], axes: Sequence[int]) -> dict[str, torch.Tensor]:
    """Heads (B, N, I, J, K) mirrored along spatial axes (0, 1, 2); offsets along a mirrored axis change their sign."""
    dims = [axis + 2 for axis in axes]
    flipped = {name: torch.flip(values, dims) for name, values in heads.items()}
    if OFFSET in flipped:
        signs = torch.tensor([-1.0 if axis in axes else 1.0 for axis in range(3)], device=flipped[OFFSET].device)
        flipped[OFFSET] = flipped[OFFSET] * signs[:, None, None, None]
    return flipped


class SplitHeads(nn.Module):
    """Any network that gives four channels more than there are classes; its last features serve all heads.

    Parameters
    ----------
    network
        From (B, C, I, J, K) to (B, N + 4, I, J, K).
    n_classes
        N, background included.
    """

    def __init__(self, network: nn.Module, n_classes: int) -> None:
        super().__init__()
        self.network, self.n_classes = network, n_classes

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Heads by name for an image (B, C, I, J, K)."""
        return as_named_heads(self.network(image), self.n_classes)


class JoinedHeads(nn.Module):
    """A network with heads whose output is one tensor: logits, center, offset in millimeters."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, N + 4, I, J, K) for an image (B, C, I, J, K)."""
        output = self.network(image)
        if isinstance(output, torch.Tensor):
            return output
        return torch.cat([output[SEMANTIC], output[CENTER], output[OFFSET]], dim=1)
