"""What a folder of labeled scans holds, told in one way whatever its layout: the cases that a manifest is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medseg.errors import InvalidManifest
from medseg.io.json_files import read_json
from medseg.io.manifest import ManifestChannel, Split

__all__ = ["FoundCase", "FoundSet", "Layout", "channel_called", "find_layout", "read_description"]

Layout = Literal["nnunet", "msd", "bids", "pattern"]

_MODALITIES = (
    ("PT", re.compile(r"^(pt|pet|fdg|psma|suv)", re.IGNORECASE)),
    ("CT", re.compile(r"^(ct|cbct|cect)", re.IGNORECASE)),
    ("MR", re.compile(r"^(mr|mri|t1|t2|flair|dwi|adc|swi|pd|tof|dce|b0)", re.IGNORECASE)),
    ("NM", re.compile(r"^(nm|spect)", re.IGNORECASE)),
)


@dataclass(frozen=True)
class FoundCase:
    """One case on disk: an image a channel, a label map, perhaps a map of instances."""

    case_id: str
    images: tuple[Path, ...]
    label: Path
    patient: str | None = None
    instances: Path | None = None
    split: Split = "train"
    fold: int | None = None


@dataclass(frozen=True)
class FoundSet:
    """The cases of a folder, and what the folder says of itself.

    Parameters
    ----------
    cases, channels
        At least one of each; every case has an image a channel.
    labels, regions
        Class names, and the classes that regions unite; `labels` is None where the folder does not say.
    about
        Fields of a manifest by name ("name", "licence", ...), as far as the folder says them.
    notes
        What was left out, and why.
    """

    cases: tuple[FoundCase, ...]
    channels: tuple[ManifestChannel, ...]
    labels: Mapping[int, str] | None = None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_layout(folder: Path) -> Layout | None:
    """How a folder is laid out, by the file that says so; None if there is none."""
    if (folder / "dataset.json").is_file():
        return "nnunet" if "channel_names" in read_description(folder / "dataset.json") else "msd"
    return "bids" if (folder / "dataset_description.json").is_file() else None


def read_description(path: Path) -> dict[str, Any]:
    """A JSON object that describes a folder.

    Raises
    ------
    InvalidManifest
        If it is JSON, but no object.
    """
    described = read_json(path)
    if not isinstance(described, dict):
        raise InvalidManifest(f"{path} holds no JSON object, so it does not describe a data set")
    return described


def channel_called(name: str) -> ManifestChannel:
    """A channel with the modality that its name suggests, OT ("other") if none; in SUV only if the name says so.

    Examples
    --------
    >>> channel_called("T1c").modality, channel_called("PET_SUV").units, channel_called("zscore").modality
    ('MR', 'suv', 'OT')
    """
    modality = next((code for code, pattern in _MODALITIES if pattern.match(name)), "OT")
    return ManifestChannel(name=name, modality=modality, units="suv" if "suv" in name.lower() else "stored")
