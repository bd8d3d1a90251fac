"""The one way to load weights: tensors only, never code.

`torch.load` with `weights_only=True` refuses pickled objects, so that a weights file cannot run anything.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from medseg.errors import InvalidBundle

__all__ = ["load_weights", "read_state_dict", "weights_sha256"]


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read a plain state dict.

    Raises
    ------
    InvalidBundle
        If the file is missing, damaged, holds anything but tensors by name, or needs code to be loaded.
    """
    if not path.is_file():
        raise InvalidBundle(f"{path}: no weights file there")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InvalidBundle(f"{path}: not a weights file that loads without running code ({error})") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InvalidBundle(f"{path}: expected a state dict (name to tensor); got {type(state).__name__}")
    return dict(state)


def load_weights(network: nn.Module, state: Mapping[str, torch.Tensor], source: Path) -> None:
    """Put weights into a network, every one of them and no other.

    Raises
    ------
    InvalidBundle
        If names or shapes differ from the network's.
    """
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise InvalidBundle(f"{source}: the weights do not fit the plan's network ({error})") from error


def weights_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a weights file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
