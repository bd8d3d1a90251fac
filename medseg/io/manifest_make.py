"""From a folder of labeled scans to a checked data manifest."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from medseg.core.monitor import Monitor, Progress
from medseg.errors import InvalidManifest, OutputExists, UsageError
from medseg.io.hashes import sha256_of_file
from medseg.io.json_files import write_json
from medseg.io.label_files import read_semantic
from medseg.io.labelled_cases import read_cases
from medseg.io.layout_bids import read_bids_folder
from medseg.io.layout_dataset_json import read_msd_folder, read_nnunet_folder
from medseg.io.layout_pattern import read_pattern_folder
from medseg.io.layouts import FoundCase, FoundSet, Layout, channel_called, find_layout
from medseg.io.manifest import DataManifest, ManifestChannel, explain_manifest

__all__ = ["make_manifest"]

_UNKNOWN = "unknown"


def make_manifest(
    folder: str | PathLike[str],
    output: str | PathLike[str],
    *,
    layout: Layout | None = None,
    images: Sequence[str] = (),
    label: str | None = None,
    instances: str | None = None,
    numbered: bool = False,
    channels: Sequence[str | ManifestChannel] = (),
    labels: Mapping[int, str] | None = None,
    patient: str | None = None,
    n_folds: int = 5,
    about: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[DataManifest, tuple[str, ...]]:
    """Write the manifest of a folder, once every case of it has been read and checked.

    Parameters
    ----------
    folder
        nnU-Net's or the Decathlon's (`dataset.json`), one after BIDS, or any other with `images` and `label`.
    output
        The manifest to write.
    layout
        "nnunet", "msd", "bids" or "pattern"; by default what the folder says.
    images, label, instances
        Patterns of paths below the folder, with `{case}` and perhaps `{patient}`; one image pattern a channel.
    numbered
        The label maps hold lesion numbers, all of one class.
    channels
        In place of what the layout says: names, or whole channels. For BIDS the names choose the images.
    labels
        Class names by number, in place of what the layout says.
    patient
        A regular expression that finds the patient in a case's name, by its first group or as a whole.
    n_folds
        How many folds patients are dealt into, where the layout brings none; fewer if there are fewer patients.
    about
        `name`, `description`, `source`, `licence`, `licence_url`, `attribution`.
    overwrite
        Replace a manifest that is there already.
    progress
        Called with stage, cases done and cases in all.

    Returns
    -------
    The manifest, and notes on what was left out or is not known.

    Raises
    ------
    UsageError
        If the layout is not told, or an argument does not fit it.
    InvalidManifest
        If a case lacks a file, a patient is in two splits or folds, or cases hold the same voxels.
    GridMismatch, InvalidLabelMap
        As `medseg.io.labelled_cases.read_cases`.
    OutputExists
        If the manifest is there and `overwrite` is False.
    """
    root, path, monitor = Path(folder), Path(output), Monitor(progress)
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} is there already; --overwrite replaces it")
    with monitor.stage("find"):
        found = _find(root, layout, images, label, instances, [_channel(channel).name for channel in channels])
    chosen = tuple(map(_channel, channels)) or found.channels
    if len(chosen) != len(found.channels):
        raise UsageError(f"{root} has {len(found.channels)} image(s) a case; {len(chosen)} channel(s) were named")
    names = labels or found.labels or _names_found(found, numbered)
    folds = _dealt(found.cases, patient, n_folds)
    with monitor.stage("hash", total=len(found.cases)):
        cases = [_listed(case, root, patient, folds, numbered, monitor) for case in found.cases]
    content = {
        **_about(found, about or {}, root),
        "root": os.path.relpath(root, path.parent).replace(os.sep, "/"),
        "channels": [channel.model_dump() for channel in chosen],
        "labels": dict(sorted(names.items())),
        "regions": {name: list(united) for name, united in found.regions.items()},
        "cases": cases,
    }
    try:
        manifest = DataManifest.model_validate(content)
    except ValidationError as error:
        raise InvalidManifest(f"{root}: {explain_manifest(error)}") from error
    with monitor.stage("check", total=len(found.cases)):
        read_cases(manifest, root, monitor.advance)
    write_json(manifest.model_dump(mode="json", exclude_defaults=True, by_alias=True) | {"schema_version": 1}, path)
    return manifest, (*found.notes, *_unsaid(manifest))


def _find(
    root: Path, layout: Layout | None, images: Sequence[str], label: str | None, instances: str | None, names: list[str]
) -> FoundSet:
    if not root.is_dir():
        raise UsageError(f"{root} is no folder")
    kind = layout or ("pattern" if label is not None else find_layout(root))
    if kind == "pattern":
        if label is None or not images:
            raise UsageError("a layout by pattern needs --image (one a channel) and --label")
        return read_pattern_folder(root, images, label, instances)
    if kind is None:
        raise UsageError(
            f"{root} holds no dataset.json (nnU-Net, Decathlon) and no dataset_description.json (BIDS); say where its "
            "files lie, as in --image '{case}/ct.nii.gz' --label '{case}/lesions.nii.gz'"
        )
    if images or label or instances:
        raise UsageError(f"a folder laid out as {kind} says itself where its files lie; --layout pattern overrides it")
    if kind == "bids":
        return read_bids_folder(root, names)
    return read_nnunet_folder(root) if kind == "nnunet" else read_msd_folder(root)


def _channel(given: str | ManifestChannel) -> ManifestChannel:
    return channel_called(given) if isinstance(given, str) else given


def _names_found(found: FoundSet, numbered: bool) -> dict[int, str]:
    """Names for the numbers that the label maps hold, where nobody says them."""
    if numbered:
        return {1: "lesion"}
    numbers: set[int] = set()
    for case in found.cases:
        numbers |= set(read_semantic(case.label).scheme.classes)
    return {1: "lesion"} if numbers <= {1} else {number: f"class_{number}" for number in sorted(numbers)}


def _patient_of(case: FoundCase, expression: str | None) -> str | None:
    if expression is None:
        return case.patient
    try:
        match = re.search(expression, case.case_id)
    except re.error as error:
        raise UsageError(f"--patient {expression!r} is no regular expression: {error}") from error
    if match is None:
        raise UsageError(f"--patient {expression!r} matches nothing in the name of case {case.case_id}")
    return str(match[1] if match.groups() else match[0])


def _dealt(cases: Sequence[FoundCase], expression: str | None, n_folds: int) -> dict[str, int]:
    """Case to fold: patients in an order drawn from seed 0, dealt out one after the other."""
    if n_folds < 2 or any(case.fold is not None for case in cases):
        return {case.case_id: case.fold for case in cases if case.fold is not None}
    whose = {case.case_id: _patient_of(case, expression) or case.case_id for case in cases if case.split == "train"}
    patients = sorted(set(whose.values()))
    if len(patients) < 2:
        return {}
    order = np.random.default_rng(0).permutation(len(patients)).tolist()
    fold_of = {patients[index]: place % min(n_folds, len(patients)) for place, index in enumerate(order)}
    return {case_id: fold_of[name] for case_id, name in whose.items()}


def _listed(
    case: FoundCase, root: Path, expression: str | None, folds: Mapping[str, int], numbered: bool, monitor: Monitor
) -> dict[str, Any]:
    def file(path: Path) -> dict[str, str]:
        below = Path(os.path.relpath(path, root)).as_posix()
        if below.startswith("../"):
            raise UsageError(f"{case.case_id}: {path} lies outside of {root}; name the folder above both")
        return {"path": below, "sha256": sha256_of_file(path)}

    monitor.advance()
    return {
        "case_id": case.case_id,
        "images": [file(path) for path in case.images],
        "label": file(case.label),
        "instances": None if case.instances is None else file(case.instances),
        "patient": _patient_of(case, expression),
        "split": case.split,
        "fold": folds.get(case.case_id),
        "lesions": "numbered" if numbered else "unknown",
    }


def _about(found: FoundSet, given: Mapping[str, str], root: Path) -> dict[str, str]:
    said = {**found.about, **{key: value for key, value in given.items() if value}}
    name = re.sub(r"[^A-Za-z0-9_]+", "_", said.get("name", root.resolve().name)).strip("_")
    keys = ("description", "source", "licence", "licence_url", "attribution")
    return {"name": name or "data", **{key: said.get(key, _UNKNOWN) for key in keys}}


def _unsaid(manifest: DataManifest) -> tuple[str, ...]:
    unknown = [key for key in ("licence", "source", "attribution") if getattr(manifest, key) == _UNKNOWN]
    if not unknown:
        return ()
    return (f"{', '.join(unknown)} unknown: a model card repeats them, so say them with --{' and --'.join(unknown)}",)
