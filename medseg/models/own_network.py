"""The network of one of medseg's own bundles, with its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from medseg.models.bundle import Bundle, read_bundle
from medseg.networks.build import build_network
from medseg.networks.checkpoint import load_weights, read_state_dict, weights_sha256
from medseg.networks.heads import JoinedHeads

__all__ = ["joined_network", "own_network", "own_weights_sha256"]


def own_network(bundle: Bundle) -> nn.Module:
    """A bundle's network with its weights, in evaluation mode.

    Raises
    ------
    InvalidBundle
        If the weights are damaged or do not fit.
    """
    network = build_network(bundle.plan)
    load_weights(network, own_weights(bundle), bundle.weights)
    return network.eval()


def own_weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    """All weights of a bundle by name, of the network and of instance heads in a file of their own, in float32."""
    heads = {} if bundle.heads is None else read_state_dict(bundle.heads)
    kept = {**read_state_dict(bundle.weights), **heads}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in kept.items()}


def own_weights_sha256(bundle: Bundle) -> str:
    """SHA-256 of the weights file; with instance heads in a file of their own, of both files' hashes."""
    if bundle.heads is None:
        return weights_sha256(bundle.weights)
    both = weights_sha256(bundle.weights) + weights_sha256(bundle.heads)
    return hashlib.sha256(both.encode()).hexdigest()


def joined_network(folder: str) -> nn.Module:
    """The network of the bundle in a folder with all heads in one tensor, for MONAI's inferers."""
    return JoinedHeads(own_network(read_bundle(Path(folder))))
