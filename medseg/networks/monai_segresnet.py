"""MONAI's `SegResNet`, without MONAI: the same arguments, parameters by the same names, the same numbers.

References
----------
Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, BrainLes 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medseg.networks.layers import Convolution, Named, activation, normalization

__all__ = ["ResidualBlock", "SegResNet"]


class SegResNet(nn.Module):
    """Residual blocks, normalized before they convolve, on a path down and a lighter one up; joined by sums.

    Parameters
    ----------
    spatial_dims
        3.
    init_filters
        Of the highest resolution; each level below has twice as many.
    in_channels, out_channels
        Of the image; logits.
    dropout_prob
        Of whole channels, behind the first convolution; None for none.
    act, norm
        Of all blocks.
    norm_name, num_groups
        An older way to say that `norm` is by groups.
    use_conv_final
        True: the network ends with logits.
    blocks_down, blocks_up
        Residual blocks a level, from the highest resolution down, and from the lowest up.
    upsample_mode
        "nontrainable" (trilinear) or "deconv".

    Raises
    ------
    NotImplementedError
        If an argument asks for what only MONAI's own class has.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        init_filters: int = 8,
        in_channels: int = 1,
        out_channels: int = 2,
        dropout_prob: float | None = None,
        act: Named = ("RELU", {"inplace": True}),
        norm: Named = ("GROUP", {"num_groups": 8}),
        norm_name: str = "",
        num_groups: int = 8,
        use_conv_final: bool = True,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        blocks_up: Sequence[int] = (1, 1, 1),
        upsample_mode: str = "nontrainable",
    ) -> None:
        super().__init__()
        if spatial_dims != 3 or not use_conv_final or len(blocks_up) != len(blocks_down) - 1:
            raise NotImplementedError("another SegResNet than the common one")
        if norm_name:
            if norm_name.lower() != "group":
                raise NotImplementedError(f"norm_name {norm_name!r}")
            norm = ("GROUP", {"num_groups": num_groups})
        self.init_filters, self.in_channels = init_filters, in_channels
        self.act_mod = activation(act)
        self.convInit = _convolution(in_channels, init_filters)
        widths = [init_filters * 2**level for level in range(len(blocks_down))]
        self.down_layers = nn.ModuleList(
            nn.Sequential(
                _convolution(width // 2, width, stride=2) if level else nn.Identity(),
                *[ResidualBlock(width, norm, act) for _ in range(n_blocks)],
            )
            for level, (width, n_blocks) in enumerate(zip(widths, blocks_down, strict=True))
        )
        self.up_layers, self.up_samples = nn.ModuleList(), nn.ModuleList()
        for width, n_blocks in zip(widths[-2::-1], blocks_up, strict=True):
            self.up_layers.append(nn.Sequential(*[ResidualBlock(width, norm, act) for _ in range(n_blocks)]))
            self.up_samples.append(
                nn.Sequential(_convolution(2 * width, width, kernel=1), _Widened(width, upsample_mode))
            )
        last = Convolution(init_filters, out_channels, 1)
        self.conv_final = nn.Sequential(normalization(norm, init_filters), self.act_mod, last)
        self.dropout = None if dropout_prob is None else nn.Dropout3d(dropout_prob)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, I, J, K) of an image (B, C, I, J, K)."""
        deep, maps = self.encode(image)
        maps.reverse()
        return self.decode(deep, maps)

    def encode(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The lowest level's feature map, and those of all levels from the highest resolution down."""
        features = self.convInit(image)
        if self.dropout is not None:
            features = self.dropout(features)
        maps = []
        for level in self.down_layers:
            features = level(features)
            maps.append(features)
        return features, maps

    def decode(self, features: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
        """Logits from the lowest level's feature map, and those of all levels from the lowest resolution up.

        The list is emptied: a map that was added is needed no more, and the largest ones take the most memory.
        """
        maps[:1] = []  # of the lowest level: the features themselves
        for widen, blocks in zip(self.up_samples, self.up_layers, strict=True):
            features = widen(features)
            features += maps.pop(0)
            features = blocks(features)
        logits: torch.Tensor = self.conv_final(features)
        return logits


class ResidualBlock(nn.Module):
    """Two convolutions, each behind a normalization and an activation; what they give is added to what they read.

    Parameters
    ----------
    width
        Channels in and out.
    norm, act
        Of both.
    """

    def __init__(self, width: int, norm: Named, act: Named) -> None:
        super().__init__()
        self.norm1, self.norm2 = normalization(norm, width), normalization(norm, width)
        self.act = activation(act)
        self.conv1, self.conv2 = _convolution(width, width), _convolution(width, width)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, width, I, J, K) to the same."""
        # one expression: a name for what the first convolution gives would keep it until the second is done
        inner: torch.Tensor = self.conv2(self.act(self.norm2(self.conv1(self.act(self.norm1(features))))))
        inner += features
        return inner


class _Widened(nn.Sequential):
    """Twice as many voxels along each axis."""

    def __init__(self, width: int, mode: str) -> None:
        super().__init__()
        if mode == "nontrainable":
            self.upsample_non_trainable = nn.Upsample(
                scale_factor=(2.0, 2.0, 2.0), mode="trilinear", align_corners=False
            )
        elif mode == "deconv":
            self.deconv = nn.ConvTranspose3d(width, width, 2, 2)
        else:
            raise NotImplementedError(f"upsample_mode {mode!r}")


def _convolution(n_inputs: int, n_outputs: int, kernel: int = 3, stride: int = 1) -> Convolution:
    return Convolution(n_inputs, n_outputs, kernel, stride, bias=False)
