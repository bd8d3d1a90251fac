"""nnU-Net's U-Nets: plain, with a residual encoder, or residual throughout; in two or three dimensions.

Own modules whose parameters carry the names of `dynamic_network_architectures`, so that its weights load by name.
They give the logits of the highest resolution only, and let go of each skip connection as soon as it has been used.

References
----------
Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, Nature
Methods 2021; Isensee et al., nnU-Net Revisited, MICCAI 2024 (residual encoders); He et al., Bag of tricks for image
classification, CVPR 2019 (the residual block: average pooling, then a 1x1 convolution, in its shortcut).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

__all__ = ["NnunetArchitecture", "NnunetNetwork", "SliceBySlice"]

Sides = tuple[int, ...]

_CONVOLUTIONS: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOLS: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_NORMS: dict[tuple[str, int], Any] = {
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
}
_ACTIVATIONS: dict[str, Any] = {
    "LeakyReLU": nn.LeakyReLU,
    "ReLU": nn.ReLU,
    "ELU": nn.ELU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
}


@dataclass(frozen=True)
class NnunetArchitecture:
    """All numbers of one network, one entry a stage from the highest resolution down.

    Parameters
    ----------
    kind
        "plain": convolutions everywhere; "residual_encoder": residual blocks on the way down; "residual": both ways.
    n_inputs, n_outputs
        Channels in, logits out.
    features, kernels, strides, encoder_blocks
        One a stage; kernels and strides have 2 or 3 sides, which also says how many dimensions the network has.
    decoder_blocks
        One a stage but the lowest, from the lowest resolution up.
    has_bias
        Whether convolutions have one (the shortcut's never has, the last one always).
    norm, norm_arguments
        "instance", "batch" or "none", and `eps`, `affine`, ... of it.
    activation, activation_arguments
        A torch activation by its class name ("none" for none), and its arguments.
    activates_first
        Whether the activation comes before the norm.
    bottlenecks
        Features inside a bottleneck block, one a stage; empty for basic blocks.
    stem_features
        Features of the residual encoder's first convolution; None for those of the first stage.
    has_all_heads
        Whether the heads of the lower resolutions are there, which only training with deep supervision looks at.
    """

    kind: Literal["plain", "residual_encoder", "residual"]
    n_inputs: int
    n_outputs: int
    features: tuple[int, ...]
    kernels: tuple[Sides, ...]
    strides: tuple[Sides, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    has_bias: bool = True
    norm: Literal["instance", "batch", "none"] = "instance"
    norm_arguments: Mapping[str, Any] = field(default_factory=lambda: {"eps": 1e-5, "affine": True})
    activation: Literal["LeakyReLU", "ReLU", "ELU", "GELU", "SiLU", "none"] = "LeakyReLU"
    activation_arguments: Mapping[str, Any] = field(default_factory=dict)
    activates_first: bool = False
    bottlenecks: tuple[int, ...] = ()
    stem_features: int | None = None
    has_all_heads: bool = True

    @property
    def n_dimensions(self) -> int:
        """2 or 3."""
        return len(self.kernels[0])


class NnunetNetwork(nn.Module):
    """Encoder and decoder; `features` and `head` are its two halves, before and at the last 1x1 convolution.

    Fresh weights; takes (B, C, J, K) or (B, C, I, J, K) as the architecture's dimensions say.
    """

    def __init__(self, architecture: NnunetArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder = _Encoder(architecture)
        self.decoder = _Decoder(architecture)

    @property
    def head(self) -> nn.Module:
        """The last 1x1 convolution, from features to logits."""
        return self.decoder.head

    def features(self, image: torch.Tensor) -> torch.Tensor:
        """(B, F, I, J, K) what the head sees of an image (B, C, I, J, K)."""
        return self.decoder(self.encoder(image))  # type: ignore[no-any-return]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, I, J, K) of an image (B, C, I, J, K)."""
        return self.head(self.features(image))  # type: ignore[no-any-return]


class SliceBySlice(nn.Module):
    """A two-dimensional network that takes windows one voxel thick, and gives logits of that shape."""

    def __init__(self, network: NnunetNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, N, 1, J, K) of an image (B, C, 1, J, K)."""
        return self.network(image[:, :, 0])[:, :, None]  # type: ignore[no-any-return]


class _Convolution(nn.Module):
    """Convolution, norm, activation."""

    def __init__(
        self,
        architecture: NnunetArchitecture,
        n_in: int,
        n_out: int,
        kernel: Sides,
        stride: Sides | None = None,
        *,
        is_active: bool = True,
        has_bias: bool | None = None,
    ) -> None:
        super().__init__()
        n = architecture.n_dimensions
        self.conv = _CONVOLUTIONS[n](
            n_in,
            n_out,
            kernel,
            stride or (1,) * n,
            padding=[(side - 1) // 2 for side in kernel],
            bias=architecture.has_bias if has_bias is None else has_bias,
        )
        self.norm = _norm(architecture, n_out)
        self.nonlin = _activation(architecture) if is_active else nn.Identity()
        self._activates_first = architecture.activates_first
        row = ("conv", "nonlin", "norm") if self._activates_first else ("conv", "norm", "nonlin")
        self.rows_of_layers = (row,)  # each reads alone what the one before gives

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self._activates_first:
            return self.norm(self.nonlin(self.conv(features)))  # type: ignore[no-any-return]
        return self.nonlin(self.norm(self.conv(features)))  # type: ignore[no-any-return]


class _Convolutions(nn.Module):
    """Several in a row; the first one strides."""

    def __init__(
        self,
        architecture: NnunetArchitecture,
        n: int,
        n_in: int,
        n_out: int,
        kernel: Sides,
        stride: Sides | None = None,
    ) -> None:
        super().__init__()
        first = _Convolution(architecture, n_in, n_out, kernel, stride)
        others = [_Convolution(architecture, n_out, n_out, kernel) for _ in range(n - 1)]
        self.convs = nn.Sequential(first, *others)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.convs(features)  # type: ignore[no-any-return]


class _Residual(nn.Module):
    """Two convolutions (three with a bottleneck) and a shortcut around them."""

    def __init__(
        self,
        architecture: NnunetArchitecture,
        n_in: int,
        n_out: int,
        kernel: Sides,
        stride: Sides,
        bottleneck: int | None = None,
    ) -> None:
        super().__init__()
        one = (1,) * architecture.n_dimensions
        if bottleneck is None:
            self.conv1 = _Convolution(architecture, n_in, n_out, kernel, stride)
            self.conv2 = _Convolution(architecture, n_out, n_out, kernel, is_active=False)
        else:
            self.conv1 = _Convolution(architecture, n_in, bottleneck, one)
            self.conv2 = _Convolution(architecture, bottleneck, bottleneck, kernel, stride)
            self.conv3 = _Convolution(architecture, bottleneck, n_out, one, is_active=False)
        self._has_bottleneck = bottleneck is not None
        shortcut: list[nn.Module] = []
        if stride != one:
            shortcut.append(_POOLS[architecture.n_dimensions](stride, stride))
        if n_in != n_out:
            shortcut.append(_Convolution(architecture, n_in, n_out, one, is_active=False, has_bias=False))
        self.skip = nn.Sequential(*shortcut)
        self.nonlin = _activation(architecture)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        residual = self.conv2(self.conv1(features))
        if self._has_bottleneck:
            residual = self.conv3(residual)
        residual += self.skip(features)
        return self.nonlin(residual)  # type: ignore[no-any-return]


class _Residuals(nn.Module):
    """Several in a row; the first one strides."""

    def __init__(
        self,
        architecture: NnunetArchitecture,
        n: int,
        n_in: int,
        n_out: int,
        kernel: Sides,
        stride: Sides | None = None,
        bottleneck: int | None = None,
    ) -> None:
        super().__init__()
        one = (1,) * architecture.n_dimensions
        first = _Residual(architecture, n_in, n_out, kernel, stride or one, bottleneck)
        others = [_Residual(architecture, n_out, n_out, kernel, one, bottleneck) for _ in range(n - 1)]
        self.blocks = nn.Sequential(first, *others)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.blocks(features)  # type: ignore[no-any-return]


class _Encoder(nn.Module):
    def __init__(self, architecture: NnunetArchitecture) -> None:
        super().__init__()
        is_plain = architecture.kind == "plain"
        n_in = architecture.n_inputs
        self.stem: nn.Module = nn.Identity()
        if not is_plain:
            n_stem = architecture.stem_features or architecture.features[0]
            self.stem = _Convolutions(architecture, 1, n_in, n_stem, architecture.kernels[0])
            n_in = n_stem
        stages: list[nn.Module] = []
        for stage, n_out in enumerate(architecture.features):
            n, kernel = architecture.encoder_blocks[stage], architecture.kernels[stage]
            stride = architecture.strides[stage]
            if is_plain:
                stages.append(nn.Sequential(_Convolutions(architecture, n, n_in, n_out, kernel, stride)))
            else:
                bottleneck = architecture.bottlenecks[stage] if architecture.bottlenecks else None
                stages.append(_Residuals(architecture, n, n_in, n_out, kernel, stride, bottleneck))
            n_in = n_out
        self.stages = nn.Sequential(*stages)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        features = self.stem(image)
        skips = []
        for stage in self.stages:
            features = stage(features)
            skips.append(features)
        return skips


class _Decoder(nn.Module):
    """Up one stage at a time; `seg_layers` holds the heads of the stages by number, of which only the last is used."""

    def __init__(self, architecture: NnunetArchitecture) -> None:
        super().__init__()
        n_dimensions, block = architecture.n_dimensions, _Convolutions
        stages, transposed, heads = [], [], []
        for step, n_blocks in enumerate(architecture.decoder_blocks, start=1):
            below, n_out = architecture.features[-step], architecture.features[-step - 1]
            stride, kernel = architecture.strides[-step], architecture.kernels[-step - 1]
            transposed.append(_TRANSPOSED[n_dimensions](below, n_out, stride, stride, bias=architecture.has_bias))
            stage = _Residuals if architecture.kind == "residual" else block
            stages.append(stage(architecture, n_blocks, 2 * n_out, n_out, kernel))
            heads.append(_CONVOLUTIONS[n_dimensions](n_out, architecture.n_outputs, 1))
        self.stages = nn.ModuleList(stages)
        self.transpconvs = nn.ModuleList(transposed)
        first = 0 if architecture.has_all_heads else len(heads) - 1
        self.seg_layers = nn.ModuleDict({str(number): heads[number] for number in range(first, len(heads))})

    @property
    def head(self) -> nn.Module:
        """The head of the highest resolution."""
        return self.seg_layers[str(len(self.stages) - 1)]

    def forward(self, skips: list[torch.Tensor]) -> torch.Tensor:
        features = skips.pop()
        for upward, stage in zip(self.transpconvs, self.stages, strict=True):
            features = stage(torch.cat((upward(features), skips.pop()), 1))
        return features


def _norm(architecture: NnunetArchitecture, n_features: int) -> nn.Module:
    if architecture.norm == "none":
        return nn.Identity()
    norm: nn.Module = _NORMS[architecture.norm, architecture.n_dimensions](n_features, **architecture.norm_arguments)
    return norm


def _activation(architecture: NnunetArchitecture) -> nn.Module:
    if architecture.activation == "none":
        return nn.Identity()
    activation: nn.Module = _ACTIVATIONS[architecture.activation](**architecture.activation_arguments)
    return activation
