"""The cases of a manifest, opened and checked: nothing is trained on or measured with what does not fit together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.scan import Scan
from medseg.core.semantic import SemanticMap
from medseg.errors import GridMismatch, InvalidLabelMap, InvalidManifest, MedsegError
from medseg.io.label_files import read_lesions, read_semantic
from medseg.io.manifest import DataManifest, ManifestCase, ManifestFile, Split, verify_case
from medseg.io.scan import load_volume, read_scan

__all__ = ["LabelledCase", "read_cases"]

_MOST_TOLD = 5


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """A case of a manifest whose files have been verified: the scan, and its reference map on the same grid.

    `lesions` is (I, J, K), the number of each voxel's lesion; None where instances are unknown.
    """

    case_id: str
    scan: Scan
    reference: SemanticMap
    fold: int | None
    lesions: NDArray[np.unsignedinteger] | None = None
    split: Split = "train"


def read_cases(
    manifest: DataManifest, root: Path, told: Callable[[], None] = lambda: None, *, check_voxels: bool = True
) -> list[LabelledCase]:
    """Verify and open every case of a manifest.

    Parameters
    ----------
    manifest, root
        As `read_manifest` gives them.
    told
        Called after each case.
    check_voxels
        Also look for cases that hold the same voxels, which takes as long as reading all scans.

    Raises
    ------
    ScanNotFound, HashMismatch
        If a file is missing, or not the one that the manifest names.
    GridMismatch
        If a label map lies on another grid than its scan.
    InvalidLabelMap
        If a label is not in the scheme, or a lesion reaches over two classes or into the background.
    InvalidManifest
        If two cases hold the same voxels, or several cases have faults: it names them.
    """
    cases: list[LabelledCase] = []
    faults: list[MedsegError] = []
    holders: dict[str, str] = {}
    for case in manifest.cases:
        try:
            labelled = _read_case(case, manifest, root)
            cases.append(labelled)
            if check_voxels:
                _check_new(labelled, manifest, holders)
        except MedsegError as error:
            faults.append(error)
        told()
    _raise(faults)
    return cases


def _raise(faults: Sequence[MedsegError]) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        told = "\n".join(f"  {fault}" for fault in faults[:_MOST_TOLD])
        more = f"\n  and {len(faults) - _MOST_TOLD} more" if len(faults) > _MOST_TOLD else ""
        raise InvalidManifest(f"{len(faults)} faults, nothing was started:\n{told}{more}")


def _read_case(case: ManifestCase, manifest: DataManifest, root: Path) -> LabelledCase:
    verify_case(case, root)
    try:
        scan = read_scan([root / image.path for image in case.images], case_id=case.case_id)
        reference, lesions = _read_reference(case, manifest, root, scan)
    except MedsegError as error:
        if str(error).startswith(f"{case.case_id}:"):
            raise
        raise type(error)(f"{case.case_id}: {error}") from error
    return LabelledCase(case.case_id, scan, reference, case.fold, lesions, case.split)


def _read_reference(
    case: ManifestCase, manifest: DataManifest, root: Path, scan: Scan
) -> tuple[SemanticMap, NDArray[np.unsignedinteger] | None]:
    if case.lesions == "numbered":
        numbered = read_lesions(root / case.label.path)
        classes = (numbered.array > 0).astype(np.uint8)
        reference = SemanticMap(classes, numbered.geometry, manifest.scheme)
        _check_grid(case, case.label, reference.geometry, scan)
        return reference, numbered.array
    reference = read_semantic(root / case.label.path, scheme=manifest.scheme)
    _check_grid(case, case.label, reference.geometry, scan)
    if case.instances is None:
        return reference, (reference.array > 0).astype(np.uint8) if case.lesions == "one" else None
    lesions = read_lesions(root / case.instances.path)
    _check_grid(case, case.instances, lesions.geometry, scan)
    _check_classes(case, lesions.array, reference)
    return reference, lesions.array


def _check_grid(case: ManifestCase, file: ManifestFile, geometry: Geometry, scan: Scan) -> None:
    if not geometry.matches(scan.geometry):
        raise GridMismatch(
            f"{case.case_id}: the label map {file.path} lies on {geometry!r}, the scan on {scan.geometry!r}; "
            "labels must be drawn on the scan's own grid"
        )


def _check_classes(case: ManifestCase, lesions: NDArray[np.unsignedinteger], reference: SemanticMap) -> None:
    """Every lesion has one class, and lies nowhere on background."""
    inside = lesions > 0
    pairs = np.unique(np.stack([lesions[inside].astype(np.int64), reference.array[inside].astype(np.int64)]), axis=1)
    numbers, counts = np.unique(pairs[0], return_counts=True)
    if (counts > 1).any() or (pairs[1] == 0).any():
        bad = sorted({*numbers[counts > 1].tolist(), *pairs[0][pairs[1] == 0].tolist()})
        names = {0: "background", **reference.scheme.classes}
        first = ", ".join(names[int(c)] for c in pairs[1][pairs[0] == bad[0]])
        raise InvalidLabelMap(
            f"{case.case_id}: {len(bad)} lesion(s) straddle classes; lesion {bad[0]} of "
            f"{case.instances.path if case.instances else case.label.path} lies on {first} of {case.label.path}. "
            "A lesion belongs to one class: part it there, or unite the classes"
        )


def _check_new(case: LabelledCase, manifest: DataManifest, holders: dict[str, str]) -> None:
    """The voxels of each channel are no other case's: files may differ in compression, header or type alone.

    Raises
    ------
    InvalidManifest
        If they are.
    """
    volume = load_volume(case.scan, units=[channel.units for channel in manifest.channels])
    for channel, name in zip(volume.array, volume.channels, strict=True):
        digest = hashlib.sha256(repr(channel.shape).encode() + np.ascontiguousarray(channel).tobytes()).hexdigest()
        holder = holders.setdefault(digest, case.case_id)
        if holder != case.case_id:
            raise InvalidManifest(
                f"{case.case_id}: the voxels of its channel {name} are those of {holder}; a scan that comes twice "
                "would be trained on and scored on. Leave one out"
            )
