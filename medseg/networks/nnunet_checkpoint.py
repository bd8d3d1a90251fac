"""nnU-Net's checkpoints: read without running code, and brought down to one name a tensor.

A checkpoint holds the optimizer's state and a training log beside the weights, and names most tensors twice. The log
holds numpy numbers, which `torch.load(weights_only=True)` refuses; the few constructors that they need are harmless and
allowed here, nothing else is.
"""

from __future__ import annotations

import codecs
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.errors import InvalidBundle

__all__ = ["NnunetCheckpoint", "distinct_weights", "read_nnunet_checkpoint"]

_WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_SCALAR = np.float64(0).__reduce__()[0]
_ARRAY = np.zeros(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    *((function, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core") for function, name in (
        (_SCALAR, "scalar"), (_ARRAY, "_reconstruct"))),
    np.dtype,
    np.ndarray,
    *{type(np.dtype(name)) for name in ("f8", "f4", "i8", "i4", "u1", "?")},
    codecs.encode,
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class NnunetCheckpoint:
    """What inference needs of a checkpoint.

    Parameters
    ----------
    weights
        Name to tensor, each tensor once.
    configuration
        Name of the configuration that was trained; "" where the file does not say.
    trainer
        Name of the trainer class; "" where the file does not say.
    mirror_axes
        Axes that may be mirrored at test time.
    """

    weights: dict[str, torch.Tensor]
    configuration: str
    trainer: str
    mirror_axes: tuple[int, ...]


def read_nnunet_checkpoint(path: Path) -> NnunetCheckpoint:
    """Read a checkpoint; the optimizer's state stays on disk.

    Raises
    ------
    InvalidBundle
        If the file is damaged, is no nnU-Net v2 checkpoint, or needs code to be loaded.
    """
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise InvalidBundle(f"{path}: not a checkpoint that loads without running code ({error})") from error
    if isinstance(content, Mapping) and "network_weights" not in content and "state_dict" in content:
        raise InvalidBundle(f"{path}: a checkpoint of nnU-Net version 1; this reads version 2")
    weights = content.get("network_weights") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise InvalidBundle(f"{path}: no network_weights (name to tensor) there, so not an nnU-Net v2 checkpoint")
    arguments = content.get("init_args") or {}
    return NnunetCheckpoint(
        weights={name: tensor.clone() for name, tensor in distinct_weights(weights).items()},
        configuration=str(arguments.get("configuration", "")),
        trainer=str(content.get("trainer_name", "")),
        mirror_axes=tuple(int(axis) for axis in content.get("inference_allowed_mirroring_axes") or ()),
    )


def distinct_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights without second names of the same tensor, and without the names of what wrapped the network."""
    plain = {_unwrapped(name): tensor for name, tensor in weights.items()}
    return {n: t for n, t in plain.items() if ".all_modules." not in n and not n.startswith("decoder.encoder.")}


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS * 2:
        name = name.removeprefix(wrapper)
    return name
