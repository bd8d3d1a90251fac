"""Names of a bundle's channels and classes, as far as its metadata gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.core.labels import LabelScheme
from medseg.core.recipe import ChannelSpec, OutputPlan

__all__ = ["channel_specs", "is_background", "label_scheme", "network_data", "output_names"]

_MODALITIES = {"CT": "CT", "MR": "MR", "MRI": "MR", "PET": "PT", "PT": "PT", "US": "US"}
_BACKGROUND = {"background", "bg", "other"}


def network_data(metadata: Mapping[str, Any], side: str) -> dict[str, Any]:
    """The first of the network's inputs or outputs in the metadata; empty where there is none.

    Parameters
    ----------
    metadata
        `configs/metadata.json`.
    side
        "inputs" or "outputs".
    """
    data = metadata.get("network_data_format")
    entries = data.get(side) if isinstance(data, Mapping) else None
    first = next(iter(entries.values()), None) if isinstance(entries, Mapping) and entries else None
    return dict(first) if isinstance(first, Mapping) else {}


def channel_specs(metadata: Mapping[str, Any], n_channels: int, keys: Sequence[str]) -> tuple[ChannelSpec, ...]:
    """The input channels: named by the keys of the files, else by the metadata, else by number.

    Parameters
    ----------
    metadata
        `configs/metadata.json`.
    n_channels
        Of the image, without channels for clicks.
    keys
        Keys of the files that make up a case.
    """
    described = network_data(metadata, "inputs")
    modality = _MODALITIES.get(str(described.get("modality", "")).strip().upper(), "")
    named = _numbered(described.get("channel_def"))
    if len(keys) == n_channels > 1:
        names = list(keys)
    elif n_channels > 1:
        names = [named.get(number, f"channel {number}") for number in range(n_channels)]
    else:
        names = [named.get(0, keys[0] if keys else "image")]
    return tuple(ChannelSpec(name=name, modality=modality) for name in names)


def output_names(metadata: Mapping[str, Any], n_channels: int | None = None) -> dict[int, str]:
    """Names of the network's output channels that the metadata gives; empty where it gives none.

    Parameters
    ----------
    metadata
        `configs/metadata.json`.
    n_channels
        Of the network's output; None for all that are named.
    """
    described = network_data(metadata, "outputs")
    named = _numbered(described.get("channel_def") or described.get("label_def"))
    return {number: name for number, name in named.items() if n_channels is None or number < n_channels}


def is_background(names: Mapping[int, str]) -> bool:
    """Whether channel 0 is named as background."""
    return names.get(0, "").strip().casefold() in _BACKGROUND


def label_scheme(output: OutputPlan, names: Mapping[int, str]) -> LabelScheme:
    """Names of the classes that are painted.

    Channels that are painted over one another are regions: a class is what is left of its channel, and the region
    unites it with all that is painted over it.
    """
    order = output.paint_order or tuple(range(len(output.paint)))
    numbers = sorted({number for number in output.paint if number > 0})
    if output.decision == "argmax" or len(numbers) < 2:
        return LabelScheme(classes={n: _name(names, output.paint.index(n), n) for n in numbers or [1]})
    classes, regions = {}, {}
    is_nested = bool(output.paint_order) and not is_background(names)
    for place, channel in enumerate(order):
        number = output.paint[channel]
        if number == 0:
            continue
        name = _name(names, channel, number)
        above = [output.paint[other] for other in order[place + 1 :] if output.paint[other] > 0]
        classes[number] = f"{name} (rest)" if above and is_nested else name
        if is_nested:
            regions[name] = tuple(sorted({number, *above}))
    return LabelScheme(classes=classes, regions=regions)


def _name(names: Mapping[int, str], channel: int, number: int) -> str:
    return names.get(channel) or f"class {number}"


def _numbered(defined: Any) -> dict[int, str]:
    """Names by number; bundles write numbers as texts."""
    if not isinstance(defined, Mapping):
        return {}
    return {int(key): str(name) for key, name in defined.items() if str(key).strip().isdigit()}
