"""Folders described by a `dataset.json`: of nnU-Net v2, and of the Medical Segmentation Decathlon and nnU-Net v1.

References
----------
nnU-Net, documentation/dataset_format.md; Antonelli et al., The Medical Segmentation Decathlon, Nat Commun 2022.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.errors import InvalidManifest
from medseg.io.json_files import read_json
from medseg.io.layouts import FoundCase, FoundSet, channel_called, read_description
from medseg.io.manifest import Split

__all__ = ["read_msd_folder", "read_nnunet_folder"]

_FOLDS = "splits_final.json"
_INSTANCES = "instancesTr"  # beside labelsTr, one map of lesion numbers a case: medseg's addition to nnU-Net's layout


def read_nnunet_folder(folder: Path) -> FoundSet:
    """Cases of `labelsTr` and `imagesTr`; those of `imagesTs` that have a label map in `labelsTs` are test cases.

    Folds come from a `splits_final.json` beside `dataset.json`, where there is one.

    Raises
    ------
    InvalidManifest
        If there is no case, one lacks an image, `dataset.json` says what a manifest cannot, or folds are not dealt to
        the cases, each into one.
    """
    described = read_description(folder / "dataset.json")
    ending = str(described.get("file_ending", ".nii.gz"))
    channels = _by_number(described.get("channel_names", {}), folder)
    labels, regions = _nnunet_labels(described.get("labels", {}), folder)
    known = {path.name.removesuffix(ending) for path in (folder / "labelsTr").glob(f"*{ending}")}
    folds = _folds(folder / _FOLDS, known)
    cases, notes = [], []
    parts: tuple[tuple[Split, str, str], ...] = (("train", "imagesTr", "labelsTr"), ("test", "imagesTs", "labelsTs"))
    for split, images, maps in parts:
        for label in sorted((folder / maps).glob(f"*{ending}")):
            name = label.name.removesuffix(ending)
            files = tuple(folder / images / f"{name}_{number:04d}{ending}" for number in range(len(channels)))
            _check_there(files, name)
            numbered = folder / _INSTANCES / label.name
            cases.append(
                FoundCase(
                    name,
                    files,
                    label,
                    instances=numbered if split == "train" and numbered.is_file() else None,
                    split=split,
                    fold=folds.get(name) if split == "train" else None,
                )
            )
        without = set((folder / images).glob(f"*_0000{ending}")) - {case.images[0] for case in cases}
        if without:
            notes.append(f"{len(without)} case(s) of {images} have no label map in {maps} and were left out")
    if not cases:
        raise InvalidManifest(f"{folder}: no label map *{ending} in labelsTr or labelsTs")
    about = _about(described, folder)
    return FoundSet(tuple(cases), tuple(map(channel_called, channels)), labels, regions, about, tuple(notes))


def read_msd_folder(folder: Path) -> FoundSet:
    """Cases that `dataset.json` lists under `training`, one file a channel.

    Raises
    ------
    InvalidManifest
        If a listed file is missing, or `dataset.json` lists no case.
    """
    path = folder / "dataset.json"
    described = read_description(path)
    channels = _by_number(described.get("modality", {}), folder)
    labels = {n: name for n, name in enumerate(_by_number(described.get("labels", {}), folder)) if n > 0}
    entries = described.get("training")
    if not isinstance(entries, list) or not entries:
        raise InvalidManifest(f'{path} lists no cases under "training"')
    cases = []
    for entry in entries:
        try:
            image, label = folder / entry["image"], folder / entry["label"]
        except (KeyError, TypeError) as error:
            raise InvalidManifest(f'{path}: entries of "training" are {{"image": ..., "label": ...}}') from error
        name = label.name.removesuffix(".gz").removesuffix(".nii")
        files = _msd_images(image, len(channels), name)
        _check_there((label,), name)
        cases.append(FoundCase(name, files, label))
    n_test = len(described.get("test", []))
    notes = (f"{n_test} test case(s) have no label map and were left out",) if n_test else ()
    return FoundSet(tuple(cases), tuple(map(channel_called, channels)), labels, {}, _about(described, folder), notes)


def _msd_images(image: Path, n_channels: int, name: str) -> tuple[Path, ...]:
    """The image itself, or nnU-Net's one file a channel; the Decathlon's own 4-D files are no scans to medseg."""
    stem = image.name.removesuffix(".gz").removesuffix(".nii")
    suffix = image.name[len(stem) :]
    numbered = tuple(image.with_name(f"{stem}_{number:04d}{suffix}") for number in range(n_channels))
    if n_channels == 1 and image.is_file():
        return (image,)
    if image.is_file():
        raise InvalidManifest(
            f"{name}: {image} holds {n_channels} channels in one 4-D file; medseg reads one file a channel "
            f"({numbered[0].name}, ...): split it, for example with nnU-Net's nnUNetv2_convert_MSD_dataset"
        )
    _check_there(numbered, name)
    return numbered


def _nnunet_labels(given: Any, folder: Path) -> tuple[dict[int, str], dict[str, tuple[int, ...]]]:
    """Names of single numbers, and regions of several; a number that only regions name gets one of its own."""
    if not isinstance(given, Mapping):
        raise InvalidManifest(f'{folder / "dataset.json"}: "labels" is no object of names and numbers')
    labels: dict[int, str] = {}
    regions: dict[str, tuple[int, ...]] = {}
    for name, value in given.items():
        if name == "ignore":
            raise InvalidManifest(
                f"{folder}: class {value} is to be ignored in training, which a manifest cannot say; leave the cases "
                "with unlabeled voxels out"
            )
        if isinstance(value, list | tuple):
            regions[str(name)] = tuple(_class_number(name, number, folder) for number in value)
        elif _class_number(name, value, folder) > 0:
            labels[int(value)] = str(name)
    for number in sorted({number for united in regions.values() for number in united} - labels.keys()):
        labels[number] = f"class_{number}"
    return labels, regions


def _class_number(name: object, value: Any, folder: Path) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise InvalidManifest(
            f'{folder / "dataset.json"}: "labels" gives each name its number, as {{"tumor": 1}}; '
            f"got {{{name!r}: {value!r}}}"
        ) from error


def _by_number(given: Any, folder: Path) -> list[str]:
    """Names in the order of their numbers: {"0": "CT", ...}; nnU-Net also writes them as {"CT": 0}."""
    try:
        pairs = [(int(key), str(value)) for key, value in dict(given).items()]
    except (TypeError, ValueError) as error:
        raise InvalidManifest(f"{folder / 'dataset.json'}: names go by number from 0; got {given!r}") from error
    if [number for number, _ in sorted(pairs)] != list(range(len(pairs))) or not pairs:
        raise InvalidManifest(f"{folder / 'dataset.json'}: numbers must run from 0 without gaps; got {given!r}")
    return [name for _, name in sorted(pairs)]


def _folds(path: Path, names: set[str]) -> dict[str, int]:
    """Case to the fold that it is held out in."""
    if not path.is_file():
        return {}
    try:
        held_out = [(str(name), number) for number, fold in enumerate(read_json(path)) for name in fold["val"]]
    except (KeyError, TypeError) as error:
        raise InvalidManifest(f'{path} is no list of folds, each {{"train": [...], "val": [...]}}') from error
    folds = dict(held_out)
    unknown = sorted(folds.keys() - names)
    if unknown:
        raise InvalidManifest(f"{path} names cases without a label map in labelsTr: {', '.join(unknown[:5])}")
    if len(folds) < len(held_out):
        doubled = sorted(name for name, n in Counter(name for name, _ in held_out).items() if n > 1)
        raise InvalidManifest(f"{path}: held out in more than one fold: {', '.join(doubled[:5])}")
    return folds


def _about(described: Mapping[str, Any], folder: Path) -> dict[str, str]:
    keys = {
        "name": ("name",),
        "description": ("description",),
        "source": ("reference", "source"),
        "licence": ("licence", "license"),
        "attribution": ("citation", "reference"),
    }
    found = {field: next((described[k] for k in names if described.get(k)), None) for field, names in keys.items()}
    return {"name": folder.name, **{field: str(value) for field, value in found.items() if value is not None}}


def _check_there(files: tuple[Path, ...], case_id: str) -> None:
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise InvalidManifest(f"{case_id}: {', '.join(missing)} not found; every case needs one image a channel")
