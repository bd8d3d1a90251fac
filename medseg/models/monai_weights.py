"""Weights of a bundle: where they lie, and what is in the file, read as tensors and plain values only."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from medseg.errors import InvalidBundle, ModelError
from medseg.models.monai_config import BundleConfig
from medseg.models.torchscript import read_script_weights

__all__ = ["Checkpoint", "find_weights", "fitted_weights", "load_plain", "read_checkpoint"]

_WRAPPER_KEYS = ("state_dict", "model", "network", "net", "model_state_dict", "network_weights")
_PREFIXES = ("module.", "model.", "network.", "net.", "_orig_mod.")
_NUMBERS = ("Bool", "Float16", "Float32", "Float64", "Int8", "Int16", "Int32", "Int64", "UInt8")
_SUFFIXES = {".pt", ".pth", ".ts", ".safetensors"}


class Checkpoint:
    """Where weights lie, under which key of the file, and whether other weights in it may be left over."""

    def __init__(
        self, path: Path, keys: Sequence[str] = (), *, is_strict: bool = True, repair: str | None = None
    ) -> None:
        self.path, self.keys, self.is_strict, self.repair = path, tuple(keys), is_strict, repair


def find_weights(config: BundleConfig, folder: Path) -> Checkpoint:
    """The weights that the bundle's loader names, else `models/model.pt` or the only file of weights there.

    Raises
    ------
    InvalidBundle
        If there are none.
    UntrustedCode
        If only code can say where they are.
    """
    loaders = list(config.components("CheckpointLoader"))
    for loader in loaders:
        named = Path(str(loader.get("load_path")))
        keys = [str(key) for key in (loader.get("load_dict") or {"model": None})]
        is_strict = str(loader.get("strict", True)).lower() != "false"
        inside = named if named.is_absolute() else folder / named
        if inside.is_file() and inside.resolve().is_relative_to(folder.resolve()):
            return Checkpoint(inside, keys, is_strict=is_strict)
        other = folder / "models" / named.name
        if other.is_file():
            note = f"weights taken from models/{named.name}; the configuration names {named}"
            return Checkpoint(other, keys, is_strict=is_strict, repair=note)
        raise InvalidBundle(f"{config.name}: no weights at {_shown(inside, folder)}; the bundle is incomplete")
    return Checkpoint(_usual_file(folder, config.name))


def _usual_file(folder: Path, name: str) -> Path:
    for usual in ("model.pt", "model.safetensors", "model.pth", "model.ts"):
        if (folder / "models" / usual).is_file():
            return folder / "models" / usual
    found = sorted(path for path in (folder / "models").glob("*") if path.suffix in _SUFFIXES)
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise InvalidBundle(f"{name}: no weights at models/model.pt, and none that is meant alone; there: {listed}")
    return found[0]


def _shown(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def read_checkpoint(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The state dict in a file, taken out of what it is wrapped in.

    Raises
    ------
    InvalidBundle
        If the file is damaged, holds no state dict, or needs code to be loaded.
    """
    path = checkpoint.path
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise InvalidBundle(f"{path}: not a file of safetensors ({error})") from error
    if path.suffix == ".ts":
        return read_script_weights(path)
    content = load_plain(path)
    if not isinstance(content, Mapping):
        raise InvalidBundle(f"{path}: expected a state dict (name to tensor); got {type(content).__name__}")
    if _is_state(content):
        return dict(content)
    for key in (*checkpoint.keys, *_WRAPPER_KEYS):
        if isinstance(content.get(key), Mapping) and _is_state(content[key]):
            return dict(content[key])
    held = ", ".join(sorted(str(key) for key in content)[:8])
    raise InvalidBundle(f"{path}: no state dict in it; it holds {held}")


def fitted_weights(
    state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], checkpoint: Checkpoint
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Weights under the network's own names, with notes on prefixes that were taken off.

    Raises
    ------
    InvalidBundle
        If names or shapes differ from the network's.
    """
    notes: list[str] = []
    named = dict(state)
    for _ in range(3):
        if set(expected) <= set(named):
            break
        prefix = next((p for p in _PREFIXES if named and all(name.startswith(p) for name in named)), None)
        if prefix is None:
            break
        named = {name.removeprefix(prefix): tensor for name, tensor in named.items()}
        notes.append(f"prefix {prefix!r} taken off the names of the weights")
    _check_names(named, expected, checkpoint)
    left_over = sorted(set(named) - set(expected))
    if left_over:
        notes.append(f"{len(left_over)} weights that the network has not were left out, as the loader allows")
    return {name: named[name] for name in expected}, tuple(notes)


def _check_names(
    named: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], checkpoint: Checkpoint
) -> None:
    missing = sorted(set(expected) - set(named))
    left_over = sorted(set(named) - set(expected))
    wrong = sorted(name for name in set(expected) & set(named) if expected[name].shape != named[name].shape)
    if missing or wrong or (left_over and checkpoint.is_strict and checkpoint.path.suffix != ".ts"):
        first = [*(f"{n} is missing" for n in missing), *(f"{n} is unknown to the network" for n in left_over)]
        shapes = [f"{n} is {tuple(named[n].shape)}, the network's {tuple(expected[n].shape)}" for n in wrong]
        count = len(missing) + len(left_over) + len(wrong)
        raise InvalidBundle(
            f"{checkpoint.path}: the weights do not fit the network ({count} of {len(expected)} names: "
            f"{'; '.join([*shapes, *first][:4])}). Another version of the model, or of its configuration?"
        )


def load_plain(path: Path) -> Any:
    """What a file of weights holds: tensors, numpy arrays of numbers, containers; never code.

    Raises
    ------
    InvalidBundle
        If the file is missing, damaged, or needs code to be loaded.
    """
    if not path.is_file():
        raise InvalidBundle(f"{path}: no weights file there")
    try:
        with _numbers_of_numpy():
            return torch.load(path, map_location="cpu", weights_only=True)
    except ModelError:
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidBundle(f"{path}: not a weights file that loads without running code ({reason})") from error


@contextmanager
def _numbers_of_numpy() -> Iterator[None]:
    """Allow arrays of numbers, as the search codes of DiNTS are stored, under their old and new names."""
    multiarray: Any = import_module("numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray")
    kinds = [getattr(np.dtypes, f"{kind}DType") for kind in _NUMBERS]
    allowed: list[Any] = [np.ndarray, np.dtype, *kinds]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        allowed += [(multiarray._reconstruct, f"{module}._reconstruct"), (multiarray.scalar, f"{module}.scalar")]
    with torch.serialization.safe_globals(allowed):
        yield


def _is_state(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(v, torch.Tensor) for v in content.values())
