"""Data manifests: which cases a model was trained on or is measured with, where from, under which licence, which split.

A manifest names files and their SHA-256; it never holds the data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from medseg.core.labels import LabelScheme
from medseg.core.volume import Units
from medseg.errors import HashMismatch, InvalidManifest, ScanNotFound
from medseg.io.hashes import sha256_of_file

__all__ = [
    "DataManifest",
    "ManifestCase",
    "ManifestChannel",
    "ManifestFile",
    "Split",
    "explain_manifest",
    "manifest_schema",
    "read_manifest",
    "verify_case",
]


def _inside_root(path: str) -> str:
    if not path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("must be a path below the manifest's root, without '..'")
    return path


def _class_number(number: int) -> int:
    if not 1 <= number <= 65535:
        raise ValueError("class numbers lie in 1..65535 (0 is background)")
    return number


Split = Literal["train", "validation", "test"]
_RelativePath = Annotated[str, AfterValidator(_inside_root)]
_ClassNumber = Annotated[int, AfterValidator(_class_number)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ManifestChannel(_Part):
    """One input channel: its name, DICOM modality, and the unit of its voxels."""

    name: str
    modality: str
    units: Units = "stored"


class ManifestFile(_Part):
    """A file below the root (POSIX path) and the SHA-256 of its bytes."""

    path: _RelativePath
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ManifestCase(_Part):
    """One case: an image a channel, its label maps, whose it is, and what it is for.

    Parameters
    ----------
    case_id
        Its name.
    images
        One file a channel.
    label
        Map of class numbers, or of lesion numbers where `lesions` is "numbered".
    instances
        Map of lesion numbers beside a map of classes: every lesion lies in one class; where a class is marked and no
        lesion, instances are unknown.
    patient
        Whose scan it is, by a name that is no identity; by default the case's own. Cases of one patient stay together.
    split
        "train"; or "validation" or "test", on which no network is trained, no plan is made and no fold is scored.
    fold
        Of a case to train on: the fold that it is held out in, or None for no fold.
    lesions
        What is known of instances: "unknown" (the label map holds classes and no more), "one" (all that is marked is
        one lesion), or "numbered" (the label map holds lesion numbers, all of class 1).
    """

    case_id: Annotated[str, Field(min_length=1)]
    images: Annotated[tuple[ManifestFile, ...], Field(min_length=1)]
    label: ManifestFile
    instances: ManifestFile | None = None
    patient: Annotated[str, Field(min_length=1)] | None = None
    split: Split = "train"
    fold: Annotated[int, Field(ge=0)] | None = None
    lesions: Literal["unknown", "one", "numbered"] = "unknown"

    @model_validator(mode="after")
    def _says_instances_once(self) -> Self:
        if self.instances is not None and self.lesions != "unknown":
            raise ValueError(f'{self.case_id} has a map of instances, so its lesions cannot be "{self.lesions}" too')
        if self.fold is not None and self.split != "train":
            raise ValueError(f"{self.case_id} is in split {self.split}; only cases to train on are in a fold")
        return self

    @property
    def files(self) -> tuple[ManifestFile, ...]:
        """Its images, then its label maps."""
        return (*self.images, self.label, *(() if self.instances is None else (self.instances,)))

    @property
    def whose(self) -> str:
        """The patient, or the case itself where none is named."""
        return self.patient or self.case_id


class DataManifest(_Part):
    """A set of cases.

    Parameters
    ----------
    name, description
        What the set is called and what it holds.
    source, licence, licence_url, attribution
        Where it came from, and on which terms it may be used.
    root
        Folder of the data, relative to the manifest file.
    channels
        The images of every case, in order.
    labels
        Class number in the label maps to class name; 0 is background and not listed.
    regions
        Region name to the class numbers that it unites.
    cases
        The cases, each with an own `case_id`.
    notes
        What whoever uses a model trained on this set must know; they go into its model card.
    """

    schema_version: Literal[1] = 1
    name: str
    description: str
    source: str
    licence: str
    licence_url: str
    attribution: str
    root: str
    channels: Annotated[tuple[ManifestChannel, ...], Field(min_length=1)]
    labels: Annotated[Mapping[_ClassNumber, str], Field(min_length=1)]
    regions: Mapping[str, tuple[_ClassNumber, ...]] = {}
    cases: Annotated[tuple[ManifestCase, ...], Field(min_length=1)]
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        doubled = sorted(name for name, n in Counter(case.case_id for case in self.cases).items() if n > 1)
        if doubled:
            raise ValueError(f"case ids must differ; doubled: {', '.join(doubled)}")
        _check_leaks(self.cases)
        for case in self.cases:
            if len(case.images) != len(self.channels):
                raise ValueError(f"{case.case_id} has {len(case.images)} image(s) for {len(self.channels)} channel(s)")
        return self

    @property
    def scheme(self) -> LabelScheme:
        """The classes as a label scheme."""
        return LabelScheme(classes=self.labels, regions=self.regions)

    def of_split(self, split: Split) -> tuple[ManifestCase, ...]:
        """The cases of one split, in order."""
        return tuple(case for case in self.cases if case.split == split)

    @property
    def folds(self) -> tuple[int, ...]:
        """The fold numbers in use, sorted."""
        return tuple(sorted({case.fold for case in self.cases if case.fold is not None}))


def _check_leaks(cases: Sequence[ManifestCase]) -> None:
    """No patient in two splits or folds, no image in two cases.

    Raises
    ------
    ValueError
        If there is one.
    """
    homes: dict[str, ManifestCase] = {}
    holders: dict[str, str] = {}
    for case in cases:
        other = homes.setdefault(case.whose, case)
        if (other.split, other.fold) != (case.split, case.fold):
            raise ValueError(
                f"patient {case.whose} is in {_home(other)} ({other.case_id}) and in {_home(case)} ({case.case_id}): "
                "a network would be scored on a patient that it was trained on. Put all cases of a patient into one"
            )
        for image in case.images:
            holder = holders.setdefault(image.sha256, case.case_id)
            if holder != case.case_id:
                raise ValueError(f"{holder} and {case.case_id} have the same image (SHA-256 {image.sha256[:12]}...)")


def _home(case: ManifestCase) -> str:
    return f"split {case.split}" + ("" if case.fold is None else f", fold {case.fold}")


def read_manifest(path: str | PathLike[str], data_root: str | PathLike[str] | None = None) -> tuple[DataManifest, Path]:
    """Read a manifest; its files are not looked at (`verify_case` does).

    Parameters
    ----------
    path
        The manifest, JSON.
    data_root
        Folder of the data, instead of the one that the manifest names.

    Returns
    -------
    manifest
        The checked manifest.
    root
        Folder of the data.

    Raises
    ------
    InvalidManifest
        If the file is missing, no JSON, or a key is unknown, missing, malformed or contradicts another.
    """
    try:
        manifest = DataManifest.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise InvalidManifest(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InvalidManifest(f"{path}: {explain_manifest(error)}") from error
    root = Path(data_root) if data_root is not None else Path(path).parent / manifest.root
    return manifest, root


def manifest_schema() -> dict[str, Any]:
    """The JSON schema of a manifest (draft 2020-12), as `docs/reference/manifest.schema.json` publishes it.

    What a schema cannot say (patients in one split, different images) `read_manifest` checks.
    """
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "medseg data manifest, version 1"}
    return {**DataManifest.model_json_schema(), **schema}


def verify_case(case: ManifestCase, root: str | PathLike[str]) -> None:
    """Check that every file of a case is the file that the manifest names.

    Raises
    ------
    ScanNotFound
        If a file is missing.
    HashMismatch
        If a file has other bytes.
    """
    for file in case.files:
        path = Path(root, file.path)
        if not path.is_file():
            raise ScanNotFound(f"{case.case_id}: {path} does not exist; is {root} the data's root folder?")
        found = sha256_of_file(path)
        if found != file.sha256:
            raise HashMismatch(
                f"{case.case_id}: {path} is not the file that the manifest names: expected SHA-256 {file.sha256}, "
                f"got {found}. Fetch the data anew, or make a new manifest"
            )


def explain_manifest(error: ValidationError) -> str:
    """What is wrong with a manifest, in one line: at most five faults, each with the key it is about."""
    details = error.errors(include_url=False)
    keys = ["".join(f"{key}." for key in detail["loc"]).removesuffix(".") for detail in details[:5]]
    words = [detail["msg"].removeprefix("Value error, ") for detail in details[:5]]
    lines = [f"{key}: {text}" if key else text for key, text in zip(keys, words, strict=True)]
    return "; ".join([*lines, *([f"and {len(details) - 5} more"] if len(details) > 5 else [])])
