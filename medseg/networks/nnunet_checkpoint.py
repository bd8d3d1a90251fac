"""nnU-Net's checkpoints: read without running code, and brought down to one name a tensor.

A checkpoint holds the optimizer's state and a training log beside the weights, and names most tensors twice. The log
holds numpy numbers, which `torch.load(weights_only=True)` refuses; the few constructors that they need are harmless and
allowed here, nothing else is.
"""

from __future__ import annotations

import codecs
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.errors import InvalidBundle

__all__ = ["NnunetCheckpoint", "distinct_weights", "read_nnunet_checkpoint", "write_nnunet_checkpoint"]

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


def write_nnunet_checkpoint(
    path: Path, weights: Mapping[str, torch.Tensor], *, arguments: Mapping[str, Any], mirror_axes: Sequence[int]
) -> None:
    """Write weights as a checkpoint that nnU-Net predicts with; there is no optimizer in it to go on training with.

    Parameters
    ----------
    path
        The file; its folder is made.
    weights
        Name to tensor, each tensor once.
    arguments
        What nnU-Net's trainer was made with: plans, configuration, fold, dataset_json.
    mirror_axes
        Axes that may be mirrored at test time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "network_weights": _with_second_names(weights),
        "optimizer_state": {},
        "grad_scaler_state": None,
        "logging": {},
        "_best_ema": None,
        "current_epoch": 0,
        "init_args": dict(arguments),
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": tuple(mirror_axes) or None,
    }
    torch.save(content, path)


def _with_second_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under every name that nnU-Net's modules know them by; the tensors are stored once."""
    named = {name: tensor.contiguous() for name, tensor in weights.items()}
    for number, part in enumerate(("conv", "norm")):
        for name in list(named):
            if f".{part}." in name:
                named[name.replace(f".{part}.", f".all_modules.{number}.")] = named[name]
    return named | {f"decoder.{name}": tensor for name, tensor in named.items() if name.startswith("encoder.")}
