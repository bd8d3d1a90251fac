"""What networks that never saw a case made of it, kept beside its fold: operating points are tried on that.

A file holds the box around everything that is likelier foreground than a low threshold and all of the reference. Its
name says nothing of the case.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.errors import TrainingError
from medseg.io.atomic import atomic_path

__all__ = ["HeldOut", "HeldOutSummary", "LEAST_PROBABILITY", "keep", "read_held_out", "read_summary"]

LEAST_PROBABILITY = 0.05
"""Foreground that is less likely is not kept, unless the plan itself marks it."""

_BAD_FILE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, ValidationError)


class HeldOutSummary(BaseModel):
    """What is known of a kept case without reading its arrays.

    Parameters
    ----------
    case_id, fold, plan_sha256
        Whose file it is, and by which plan its network was trained.
    labels
        Classes of the semantic map.
    reference_classes
        Class of each reference lesion.
    voxel_ml
        Volume of a voxel of the scan.
    reference_ml, reference_peaks
        Volume of each reference lesion, and the highest intensity of the first channel in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    case_id: str
    fold: int
    plan_sha256: str
    labels: LabelScheme
    reference_classes: tuple[str, ...]
    voxel_ml: float
    reference_ml: tuple[float, ...]
    reference_peaks: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A held-out case, cut to the box that matters.

    Parameters
    ----------
    summary
        Whose it is.
    likeliest
        Class other than background that is likeliest, where foreground is likelier than the lowest threshold; with the
        probability of foreground, and the evidence of instance heads where there are some.
    decided
        (I, J, K) class numbers as the plan decides them, before it leaves out faint regions.
    intensity
        (I, J, K) float32, first channel of the scan where foreground is likely at all, else 0.
    reference
        The reference lesions.
    """

    summary: HeldOutSummary
    likeliest: SemanticMap
    decided: NDArray[np.unsignedinteger]
    intensity: NDArray[np.float32]
    reference: LesionMap

    def marked(self, threshold: float | None) -> SemanticMap:
        """The semantic map at a threshold of the foreground probability; None: as the plan decides."""
        whole = self.likeliest
        probability = whole.probability
        if threshold is None or probability is None:
            array = self.decided
        else:
            array = np.where(probability > threshold, whole.array, 0).astype(whole.array.dtype)
        return SemanticMap(array, whole.geometry, whole.scheme, probability=probability, evidence=whole.evidence)


def keep(
    folder: Path,
    case_id: str,
    fold: int,
    plan_sha256: str,
    volume: Volume,
    decided: SemanticMap,
    likeliest: NDArray[np.unsignedinteger],
    reference: LesionMap,
) -> None:
    """Write what is tried later on, all of it or nothing.

    Parameters
    ----------
    folder
        Of the fold.
    case_id, fold, plan_sha256, volume, reference
        The case.
    decided
        What the plan decides, with the foreground probability, faint regions among it.
    likeliest
        (I, J, K) class numbers wherever foreground is likely at all.
    """
    probability = decided.probability
    if probability is None:
        raise AssertionError("a semantic map of cross-validation holds the probability")
    likely = likeliest > 0
    low, high = _box(likely | (reference.array > 0))
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    summary = HeldOutSummary(
        case_id=case_id,
        fold=fold,
        plan_sha256=plan_sha256,
        labels=decided.scheme,
        reference_classes=tuple(lesion.class_name for lesion in reference.lesions),
        voxel_ml=reference.geometry.voxel_volume_ml,
        **_sizes(reference, volume.array[0]),
    )
    arrays: dict[str, NDArray[Any]] = {
        "summary": np.frombuffer(summary.model_dump_json().encode(), dtype=np.uint8),
        "affine": reference.geometry.cropped(low, high).affine,
        "likeliest": likeliest[box],
        "decided": decided.array[box],
        "probability": np.where(likely, probability, 0)[box],
        "intensity": np.where(likely, volume.array[0], 0)[box],
        "reference": reference.array[box],
    }
    if decided.evidence is not None:
        arrays["center"], arrays["offsets_mm"] = decided.evidence.center, decided.evidence.offsets_mm
        arrays["evidence_affine"] = decided.evidence.geometry.affine
    with atomic_path(_path(folder, case_id)) as draft:
        np.savez_compressed(draft, allow_pickle=False, **arrays)


def read_summary(folder: Path, case_id: str) -> HeldOutSummary | None:
    """What is kept of a case, None if nothing is.

    Raises
    ------
    TrainingError
        If the file is damaged.
    """
    path = _path(folder, case_id)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return _summary(file)
    except _BAD_FILE as error:
        raise _damaged(path, case_id) from error


def read_held_out(folder: Path, case_id: str) -> HeldOut:
    """What is kept of a case in a fold's folder.

    Raises
    ------
    TrainingError
        If nothing is kept of it, or the file is damaged.
    """
    path = _path(folder, case_id)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            summary = _summary(file)
            arrays = {name: file[name] for name in file.files}
        geometry = Geometry(arrays["reference"].shape, arrays["affine"])
        evidence = None
        if "center" in arrays:
            grid = Geometry(arrays["center"].shape, arrays["evidence_affine"])
            evidence = InstanceEvidence(arrays["center"], arrays["offsets_mm"], grid)
        likeliest = SemanticMap(
            arrays["likeliest"], geometry, summary.labels, probability=arrays["probability"], evidence=evidence
        )
        reference = LesionMap(arrays["reference"], geometry, tuple(map(Lesion, summary.reference_classes)))
        return HeldOut(summary, likeliest, arrays["decided"], arrays["intensity"], reference)
    except _BAD_FILE as error:
        raise _damaged(path, case_id) from error


def _path(folder: Path, case_id: str) -> Path:
    return folder / "held_out" / f"{hashlib.sha256(case_id.encode()).hexdigest()[:16]}.npz"


def _damaged(path: Path, case_id: str) -> TrainingError:
    return TrainingError(
        f"{path}: what was kept of case {case_id} cannot be read; delete the file and run medseg train with "
        "--cross-validate --aim --resume, which segments the case again"
    )


def _summary(file: Any) -> HeldOutSummary:
    return HeldOutSummary.model_validate(json.loads(bytes(file["summary"]).decode()))


def _box(is_inside: NDArray[np.bool_]) -> tuple[list[int], list[int]]:
    """The smallest box around some voxels, of one voxel if there are none."""
    low, high = [], []
    for axis in range(3):
        along = np.flatnonzero(is_inside.any(axis=tuple(other for other in range(3) if other != axis)))
        low.append(int(along[0]) if along.size else 0)
        high.append(int(along[-1]) + 1 if along.size else 1)
    return low, high


def _sizes(reference: LesionMap, intensity: NDArray[np.floating]) -> dict[str, Sequence[float]]:
    """Volume and highest intensity of each reference lesion."""
    inside = reference.array > 0
    numbers = reference.array[inside].astype(np.intp)
    peaks = np.full(reference.n_lesions + 1, -np.inf)
    np.maximum.at(peaks, numbers, intensity[inside])
    counts = np.bincount(numbers, minlength=reference.n_lesions + 1)[1:]
    volumes = counts * reference.geometry.voxel_volume_ml
    return {"reference_ml": tuple(volumes.tolist()), "reference_peaks": tuple(peaks[1:].tolist())}
