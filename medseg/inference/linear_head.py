"""A network whose last step is a 1x1x1 convolution, taken apart into body and head.

The mean over windows of W f + b is W times the mean of f, plus b. So the features f may be blended in place of the
logits and the convolution applied slab by slab: memory then depends on the number of features, not of classes.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["LinearHead", "split_linear_head"]

logger = logging.getLogger(__name__)

_AGREEMENT = 1e-4  # largest difference from the whole network, as a share of its largest logit


@dataclass(frozen=True, eq=False)
class LinearHead:
    """The last convolution of a network as a matrix.

    Parameters
    ----------
    weight
        (N, F) float32.
    bias
        (N,) float32.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    @property
    def n_features(self) -> int:
        """F, the channels that it reads."""
        return int(self.weight.shape[1])

    @property
    def n_outputs(self) -> int:
        """N, the channels that it gives."""
        return int(self.weight.shape[0])

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (..., N) float32 of features (..., F), on the features' device."""
        device = features.device
        return nn.functional.linear(features.float(), self.weight.to(device), self.bias.to(device))


def split_linear_head(
    network: nn.Module, n_channels: int, n_outputs: int, sides: Sequence[int]
) -> tuple[nn.Module, LinearHead] | None:
    """Take a network apart, where its last step is a 1x1x1 convolution to more channels than it reads.

    Parameters
    ----------
    network
        From (B, C, I, J, K) to logits (B, N, I, J, K); left as it is. The body shares its weights.
    n_channels, n_outputs
        C and N.
    sides
        Voxels a side of the windows on which body and head are compared with the whole, tried in this order: a
        network may refuse a small one.

    Returns
    -------
    Body, from (B, C, I, J, K) to features (B, F, I, J, K), and head; None where the network is made otherwise, or
    where a comparison on random input shows that the two together are not the network.
    """
    for name, module in reversed(list(network.named_modules())):
        if (
            isinstance(module, nn.Conv3d)
            and _is_pointwise(module)
            and module.in_channels < n_outputs == module.out_channels
        ):
            body = _without(network, name)
            head = _as_matrix(module)
            if _are_the_network(body, head, network, n_channels, sides):
                return body, head
    return None


def _is_pointwise(module: nn.Conv3d) -> bool:
    is_unpadded = module.padding in ((0, 0, 0), "valid", "same")
    return module.kernel_size == (1, 1, 1) and module.stride == (1, 1, 1) and is_unpadded and module.groups == 1


def _as_matrix(convolution: nn.Conv3d) -> LinearHead:
    weight = convolution.weight.detach().float().flatten(1)
    bias = convolution.bias.detach().float() if convolution.bias is not None else weight.new_zeros(len(weight))
    return LinearHead(weight, bias)


def _without(network: nn.Module, name: str) -> nn.Module:
    """The network with one module replaced by the identity; modules on the way to it are copied, weights are shared."""
    if not name:
        return nn.Identity()
    root = parent = _shallow(network)
    *path, last = name.split(".")
    for step in path:
        child = _shallow(parent._modules[step])
        parent._modules[step] = child
        parent = child
    parent._modules[last] = nn.Identity()
    return root


def _shallow(module: nn.Module | None) -> nn.Module:
    if module is None:
        raise AssertionError("a module named by named_modules is there")
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def _are_the_network(
    body: nn.Module, head: LinearHead, network: nn.Module, n_channels: int, sides: Sequence[int]
) -> bool:
    """Whether both give the same on random input, in evaluation mode, at the first size that the network takes."""
    for side in sides:
        window = torch.randn(1, n_channels, side, side, side, generator=torch.Generator().manual_seed(side))
        was_training = network.training
        try:
            with torch.inference_mode():
                whole = network.eval()(window)
                features = body.eval()(window)
        except (RuntimeError, ValueError, AssertionError) as error:
            logger.debug("the linear head cannot be checked on %d voxels a side: %s", side, error)
            continue
        finally:
            network.train(was_training)
        return _agree(whole, features, head)
    return False


def _agree(whole: object, features: object, head: LinearHead) -> bool:
    if not isinstance(whole, torch.Tensor) or not isinstance(features, torch.Tensor):
        return False
    if features.ndim != 5 or features.shape[1] != head.n_features or features.shape[2:] != whole.shape[2:]:
        return False
    ours = head(features.movedim(1, -1)).movedim(-1, 1)
    return ours.shape == whole.shape and bool((ours - whole).abs().max() <= _AGREEMENT * whole.abs().max())
