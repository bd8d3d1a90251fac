"""A model as plain data: a recipe, the description of its networks, and tensors; of whatever family it was.

NAME/
recipe.json               what the model does to a scan
networks.json             class and arguments of each network
weights-0.safetensors     one file a network: no optimizer, every tensor once
previous_stage/           the first stage of a cascade, the same again
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from medseg.core.recipe import Recipe
from medseg.errors import InvalidBundle, UnsupportedModel
from medseg.io.atomic import atomic_folder
from medseg.io.json_files import write_json
from medseg.models.loaded import LoadedModel
from medseg.networks.checkpoint import weights_sha256
from medseg.networks.description import NetworkDescription, build_described

__all__ = ["EXPORT_FILE", "export_model", "is_exported", "read_exported"]

EXPORT_FILE = "networks.json"
_RECIPE_FILE = "recipe.json"
_PREVIOUS = "previous_stage"


def is_exported(path: Path) -> bool:
    """Whether a folder holds an exported model."""
    return (path / EXPORT_FILE).is_file() and (path / _RECIPE_FILE).is_file()


def export_model(model: LoadedModel, folder: Path) -> Path:
    """Write a model as plain data.

    Parameters
    ----------
    model
        As loaded.
    folder
        Made; replaced if it is there.

    Raises
    ------
    UnsupportedModel
        If code of the bundle's own is part of it: such a model cannot be described by data.
    OutputNotWritable
        If the folder cannot be written.
    """
    if model.takes_over is not None or len(model.descriptions) != len(model.networks):
        raise UnsupportedModel(
            f"{model.recipe.name} runs code of its own, which an export of recipe and tensors cannot hold"
        )
    with atomic_folder(folder) as draft:
        entries = []
        for number, (network, description) in enumerate(zip(model.networks, model.descriptions, strict=True)):
            tensors, shared = _once(network)
            name = f"weights-{number}.safetensors"
            save_file(tensors, draft / name)
            entries.append({"description": description.model_dump(mode="json"), "weights": name, "shared": shared})
        write_json(
            {"schema_version": 1, "source_sha256": model.weights_sha256, "networks": entries}, draft / EXPORT_FILE
        )
        write_json(model.recipe.model_dump(mode="json"), draft / _RECIPE_FILE)
    return folder


def read_exported(folder: Path) -> LoadedModel:
    """Read an exported model.

    Raises
    ------
    InvalidBundle
        If a file is missing, damaged or does not fit the others.
    UnsupportedModel
        If a network is unknown to this version.
    """
    try:
        recipe = Recipe.model_validate_json((folder / _RECIPE_FILE).read_text(encoding="utf-8"))
        listed = json.loads((folder / EXPORT_FILE).read_text(encoding="utf-8"))["networks"]
        entries = [(NetworkDescription.model_validate(e["description"]), e["weights"], e["shared"]) for e in listed]
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise InvalidBundle(f"{folder}: {_RECIPE_FILE} or {EXPORT_FILE} cannot be read: {error}") from error
    networks, digest = [], hashlib.sha256()
    for description, name, shared in entries:
        file = folder / Path(str(name)).name
        networks.append(_with_weights(build_described(description), file, shared))
        digest.update(weights_sha256(file).encode())
    descriptions = tuple(description for description, _, _ in entries)
    previous = read_exported(folder / _PREVIOUS) if is_exported(folder / _PREVIOUS) else None
    return LoadedModel(networks, recipe, digest.hexdigest(), folder, descriptions, previous=previous)


def _with_weights(network: nn.Module, file: Path, shared: Mapping[str, Any]) -> nn.Module:
    try:
        tensors = load_file(file)
        network.load_state_dict({**tensors, **{alias: tensors[str(name)] for alias, name in shared.items()}})
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise InvalidBundle(
            f"{file}: not the weights of the network beside it ({str(error).splitlines()[0]})"
        ) from error
    return network.eval()


def _once(network: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Every tensor once, and the other names that some of them go by (DynUNet names most of its weights twice)."""
    tensors: dict[str, torch.Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in network.state_dict().items():
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            shared[name] = first[place]
        else:
            first[place] = name
            tensors[name] = tensor.detach().cpu().contiguous().clone()
    return tensors, shared
