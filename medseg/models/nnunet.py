"""nnU-Net v2 model folders, run without nnU-Net.

TRAINER__PLANS__CONFIGURATION/
plans.json                      grid, intensities, network
dataset.json                    channels and labels
fold_0/checkpoint_final.pth     weights; one folder a fold
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from medseg.core.recipe import Recipe
from medseg.errors import InvalidBundle, UsageError
from medseg.io.hashes import sha256_of_files
from medseg.io.json_files import read_json
from medseg.models.nnunet_labels import labels_of
from medseg.models.nnunet_plans import architecture_of, configuration_of
from medseg.models.nnunet_recipe import channel_names, recipe_of_nnunet
from medseg.networks.checkpoint import load_weights
from medseg.networks.nnunet import NnunetNetwork, SliceBySlice
from medseg.networks.nnunet_checkpoint import NnunetCheckpoint, read_nnunet_checkpoint

__all__ = ["find_nnunet_folder", "fold_names", "previous_stage_folder", "read_nnunet"]

_PLANS, _DATASET, _CHECKPOINT = "plans.json", "dataset.json", "checkpoint_final.pth"
_DEPTH = 3  # results / dataset / model, as nnU-Net nests them


def find_nnunet_folder(folder: Path) -> Path | None:
    """The nnU-Net model at or in a folder; None where there is none.

    Raises
    ------
    InvalidBundle
        If there are several, or the model is of version 1.
    """
    if _is_model(folder):
        return folder
    found: list[Path] = []
    for depth in range(1, _DEPTH + 1):
        found += [
            path.parent for path in sorted(folder.glob("/".join(["*"] * depth + [_PLANS]))) if _is_model(path.parent)
        ]
    if len(found) > 1:
        listed = "\n  ".join(str(path) for path in found)
        raise InvalidBundle(f"{folder}: several nnU-Net models lie there; name one of them:\n  {listed}")
    if not found and (folder / "plans.pkl").is_file():
        raise InvalidBundle(f"{folder}: a model of nnU-Net version 1 (plans.pkl); medseg runs those of version 2")
    return found[0] if found else None


def _is_model(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (_PLANS, _DATASET)) and any(folder.glob("fold_*"))


def read_nnunet(folder: Path, folds: Sequence[int | str] | None = None) -> tuple[list[nn.Module], Recipe, str]:
    """Read a model folder; nothing in it is executed.

    Parameters
    ----------
    folder
        The one with plans.json.
    folds
        Numbers (or "all") of the folds to use; None for all that there are.

    Returns
    -------
    One network a fold, the recipe, and the SHA-256 of their checkpoint files.

    Raises
    ------
    InvalidBundle
        If something is missing, damaged, contradictory or not supported.
    UsageError
        If a fold that was asked for is not there.
    """
    paths = _checkpoints(folder, folds)
    checkpoints = [read_nnunet_checkpoint(path) for path in paths]
    plans, dataset = read_json(folder / _PLANS), read_json(folder / _DATASET)
    name = checkpoints[0].configuration or _named_configuration(folder)
    configuration = configuration_of(plans, name, folder / _PLANS)
    labels = labels_of(dataset, folder / _DATASET)
    recipe = recipe_of_nnunet(
        f"{plans.get('dataset_name', folder.parent.name)} {name}",
        plans,
        configuration,
        dataset,
        labels,
        checkpoints[0].mirror_axes,
        folder / _PLANS,
    )
    n_inputs = len(channel_names(dataset, folder / _PLANS))
    _check_channels(configuration, n_inputs, folder)
    if configuration.get("previous_stage"):
        n_inputs += len(labels.foreground)
    architecture = architecture_of(configuration, n_inputs, labels.n_outputs, folder / _PLANS)
    networks: list[nn.Module] = []
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        network = NnunetNetwork(architecture)
        _load(network, checkpoint, path)
        networks.append(SliceBySlice(network) if architecture.n_dimensions == 2 else network)
    return networks, recipe, sha256_of_files(paths)


def previous_stage_folder(folder: Path) -> Path | None:
    """The model that a cascade's second stage needs before it, beside it; None for a model that needs none.

    Raises
    ------
    InvalidBundle
        If it is not there.
    """
    plans = read_json(folder / _PLANS)
    name = _named_configuration(folder)
    if not isinstance(plans.get("configurations"), dict) or name not in plans["configurations"]:
        return None
    stage = configuration_of(plans, name, folder / _PLANS).get("previous_stage")
    if not stage:
        return None
    before = folder.with_name("__".join([*folder.name.split("__")[:-1], str(stage)]))
    if not _is_model(before):
        raise InvalidBundle(
            f"{folder}: the second stage of a cascade, which needs the model of {stage} first; put its folder "
            f"beside it as {before.name}"
        )
    return before


def fold_names(folder: Path) -> list[str]:
    """The folds that are used where none is chosen: all numbers in order, or else "all".

    Raises
    ------
    InvalidBundle
        If there is none.
    """
    return [path.parent.name.removeprefix("fold_") for path in _checkpoints(folder, None)]


def _named_configuration(folder: Path) -> str:
    return folder.resolve().name.rsplit("__", 1)[-1]


def _checkpoints(folder: Path, folds: Sequence[int | str] | None) -> list[Path]:
    there = {path.parent.name.removeprefix("fold_"): path for path in folder.glob(f"fold_*/{_CHECKPOINT}")}
    if not there:
        others = sorted(path.relative_to(folder).as_posix() for path in folder.glob("fold_*/*.pth"))
        hint = f"; there are only {', '.join(others)} (training did not end)" if others else ""
        raise InvalidBundle(f"{folder}: no fold_*/{_CHECKPOINT}{hint}")
    if folds is None:
        numbered = sorted((fold for fold in there if fold.isdecimal()), key=int)
        return [there[fold] for fold in numbered or sorted(there)]
    missing = [str(fold) for fold in folds if str(fold) not in there]
    if missing or not folds:
        raise UsageError(f"{folder}: no fold {', '.join(missing) or 'asked for'}; it has {', '.join(sorted(there))}")
    return [there[str(fold)] for fold in folds]


def _check_channels(configuration: dict[str, Any], n_inputs: int, folder: Path) -> None:
    n_normalized = len(configuration["normalization_schemes"])
    if n_normalized != n_inputs:
        raise InvalidBundle(f"{folder}: {_DATASET} names {n_inputs} channel(s), {_PLANS} normalizes {n_normalized}")


def _load(network: nn.Module, checkpoint: NnunetCheckpoint, path: Path) -> None:
    try:
        load_weights(network, checkpoint.weights, path)
    except InvalidBundle as error:
        told = f"; its trainer {checkpoint.trainer} may build a network of its own" if checkpoint.trainer else ""
        raise InvalidBundle(f"{error}{told}") from error
