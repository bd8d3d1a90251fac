"""What there is to know of a model, and whether it does what it says: `medseg model info` and `check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from medseg.core.recipe import Recipe
from medseg.errors import InvalidBundle, UntrustedCode
from medseg.models.load import load_model
from medseg.models.loaded import LoadedModel
from medseg.models.monai_names import network_data
from medseg.models.shipped import find_model
from medseg.models.trust import is_trusted, model_sha256

__all__ = ["check_model", "describe_model"]

_LARGEST_SIDE = 64  # of the window that a check runs, where the network takes that


def describe_model(
    model: str | Path, *, trust: bool | None = None, classes: Sequence[int | str] | None = None
) -> dict[str, Any]:
    """A model as plain JSON values: family, network, channels, labels, grid, windows, output, hashes, repairs.

    Where the model needs code of its own and is not trusted, what would run stands under `needs_trust`, and nothing
    else is known.

    Parameters
    ----------
    model, trust, classes
        As `load_segmenter`.

    Raises
    ------
    UnknownModel, InvalidBundle, ChangedModel, UnsupportedModel, UsageError
        As `load_segmenter`.
    """
    source = find_model(model)
    try:
        loaded = load_model(model, trust=trust, classes=classes)
    except UntrustedCode as error:
        return {"name": source.name, "path": str(source), "needs_trust": str(error).splitlines()}
    recipe = loaded.recipe
    return {
        "name": recipe.name,
        "path": str(source),
        "family": recipe.family,
        "networks": _networks(loaded),
        "channels": [channel.model_dump() for channel in recipe.channels],
        "classes": {str(number): name for number, name in recipe.labels.classes.items()},
        "regions": {name: list(numbers) for name, numbers in recipe.labels.regions.items()},
        "preparation": [step.model_dump(mode="json") for step in recipe.preparation],
        "windows": recipe.windows.model_dump(mode="json"),
        "output": recipe.output.model_dump(mode="json"),
        "weights_sha256": loaded.weights_sha256,
        "recipe_sha256": recipe.sha256,
        "repairs": list(recipe.repairs),
        "needs_trust": loaded.details.get("own_code", []),
        "is_pinned": is_trusted(source),
        **{key: value for key, value in loaded.details.items() if key != "own_code"},
    }


def check_model(
    model: str | Path, *, trust: bool | None = None, classes: Sequence[int | str] | None = None
) -> list[tuple[str, str]]:
    """Load a model, run one small window, and compare with what it says of itself.

    Parameters
    ----------
    model, trust, classes
        As `load_segmenter`.

    Returns
    -------
    What was checked, and what was found; all of it as it should be.

    Raises
    ------
    InvalidBundle
        If the network gives another number of channels than its classes or its metadata say, or numbers that are not
        finite.
    UnknownModel, UntrustedCode, ChangedModel, UnsupportedModel, UsageError
        As `load_segmenter`.
    """
    loaded = load_model(model, trust=trust, classes=classes)
    found = [("weights", f"fit the network, SHA-256 {loaded.weights_sha256}")]
    n_channels = len(loaded.recipe.channels)
    shape = small_window(loaded.recipe)
    for number, network in enumerate(loaded.networks):
        given = _run(network, (n_channels + _n_previous(loaded), *shape), loaded.recipe.name)
        found.append((f"network {number}", f"{n_channels} channel(s) of {shape} give {tuple(given.shape[1:])}"))
        if loaded.takes_over is None:
            _check_outputs(given, loaded)
    _check_inputs(loaded)
    source = find_model(model)
    pin = "as pinned" if is_trusted(source) else "not pinned"
    found.append(("files", f"{pin}, SHA-256 {model_sha256(source)}"))
    return found


def small_window(recipe: Recipe) -> tuple[int, int, int]:
    """A window that is quick to run: the model's own, shrunk to 64 voxels a side where its network takes that."""
    windows = recipe.windows
    i, j, k = (
        side
        if not windows.divisor[axis] > 1 or windows.divisor[axis] > _LARGEST_SIDE
        else _shrunk(side, windows.divisor[axis])
        for axis, side in enumerate(windows.patch_size)
    )
    return (i, j, k)


def _shrunk(side: int, divisor: int) -> int:
    # two voxels at the coarsest level: an instance norm cannot take one
    return min(side, max(_LARGEST_SIDE // divisor, 2) * divisor)


def _n_previous(loaded: LoadedModel) -> int:
    """Channels that the first stage of a cascade adds."""
    return 0 if loaded.previous is None else len(loaded.previous.recipe.labels.classes)


def _run(network: torch.nn.Module, shape: tuple[int, ...], name: str) -> torch.Tensor:
    image = torch.linspace(-1.0, 1.0, int(torch.tensor(shape).prod())).reshape(1, *shape)
    try:
        with torch.inference_mode():
            output = network(image)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InvalidBundle(
            f"{name}: the network fails on a window of {shape}: {str(error).splitlines()[0]}"
        ) from error
    logits = output["semantic"] if isinstance(output, dict) else output
    if not isinstance(logits, torch.Tensor):
        raise InvalidBundle(f"{name}: the network gives {type(logits).__name__}, not logits")
    if not torch.isfinite(logits).all():
        raise InvalidBundle(f"{name}: the network gives numbers that are not finite; its weights are damaged")
    return logits


def _check_outputs(logits: torch.Tensor, loaded: LoadedModel) -> None:
    stated = {
        "its rule of output": len(loaded.recipe.output.paint),
        "its metadata": network_data(loaded.metadata, "outputs").get("num_channels"),
    }
    if any(description.asked_classes for description in loaded.descriptions):
        del stated["its metadata"]  # it cannot know how many classes the network is asked for
    for source, number in stated.items():
        if isinstance(number, int) and number != logits.shape[1]:
            raise InvalidBundle(
                f"{loaded.recipe.name}: the network gives {logits.shape[1]} channels; {source} says {number}"
            )


def _check_inputs(loaded: LoadedModel) -> None:
    stated = network_data(loaded.metadata, "inputs").get("num_channels")
    n_empty = sum(description.n_empty_channels for description in loaded.descriptions)
    if isinstance(stated, int) and stated != len(loaded.recipe.channels) + n_empty:
        raise InvalidBundle(
            f"{loaded.recipe.name}: the network takes {len(loaded.recipe.channels) + n_empty} channel(s); its metadata "
            f"says {stated}"
        )


def _networks(loaded: LoadedModel) -> list[dict[str, Any]]:
    described = loaded.descriptions or (None,) * len(loaded.networks)
    return [
        {
            "class": type(network).__name__ if description is None else description.name,
            "n_parameters": sum(parameter.numel() for parameter in network.parameters()),
            "arguments": {} if description is None else description.arguments,
        }
        for network, description in zip(loaded.networks, described, strict=True)
    ]
