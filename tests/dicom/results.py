"""Lesions on DICOM series, and the outside tools that objects are shown to."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

import medseg
from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.result import CaseResult
from medseg.core.scan import Scan
from medseg.dicom.source import Algorithm, SourceSeries
from medseg.io.dicom_source import read_source
from tests.io.dicom_files import write_series

ALGORITHM = Algorithm("a_model", "1.2", ("weights SHA-256: " + "ab" * 32, "plan SHA-256: " + "cd" * 32))
COLORS = ((228, 26, 28), (0, 120, 240))


def plane_orientations() -> list[tuple[int, ...]]:
    """All 24 pairs of perpendicular patient axes for the rows and columns of an image."""
    axes = np.eye(3, dtype=int)
    return [
        (*(axes[a] * s).tolist(), *(axes[b] * t).tolist())
        for a, b in permutations(range(3), 2)
        for s, t in product((1, -1), repeat=2)
    ]


def step_along(orientation: tuple[int, ...], length: float = 3.0) -> tuple[float, float, float]:
    """The step of a stack along its normal; a negative length is the other slice order."""
    x, y, z = (np.cross(orientation[:3], orientation[3:]) * length).tolist()
    return (x, y, z)


def series(folder: Path, **options: object) -> Scan:
    """A series of 7 x 5 x 4 voxels of 1.5 x 2 x 3 mm."""
    write_series(folder, **options)  # type: ignore[arg-type]
    return medseg.read_scan(folder)


def some_lesions(geometry: Geometry) -> LesionMap:
    """Four unlike lesions: an L, one with a hole, two pixels that touch at a corner, one voxel; slice 2 is empty."""
    array = np.zeros(geometry.shape, dtype=np.uint16)
    array[0:3, 0, 0] = array[0, 0:3, 0] = array[0, 1, 1] = 1
    array[2:5, 1:4, 1] = 2
    array[3, 2, 1] = 0
    array[5, 1, 0] = array[6, 2, 0] = 3
    array[6, 4, 3] = 4
    return LesionMap(array, geometry, tuple(Lesion(name) for name in ("lesion", "metastasis", "cyst", "odd one")))


def source_of(scan: Scan) -> SourceSeries:
    return read_source(scan)


def saved(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def tool(name: str) -> str:
    """The path of a command, in this environment or on the system; the test is skipped where it is missing."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here")
    return found


def complaints(path: Path) -> list[str]:
    """What dciodvfy calls errors in an object."""
    shown = subprocess.run([tool("dciodvfy"), str(path)], capture_output=True, text=True, errors="replace", check=False)
    lines = (shown.stdout + shown.stderr).splitlines()
    assert any("Segmentation" in line or "SR" in line or "RTStructureSet" in line for line in lines), lines
    return [line for line in lines if line.startswith("Error")]


def reoriented(
    array: NDArray[np.unsignedinteger], geometry: Geometry, order: tuple[int, ...], flips: tuple[bool, ...]
) -> tuple[NDArray[np.unsignedinteger], Geometry]:
    """The same voxels with axes in another order and direction."""
    affine = geometry.affine.copy()
    for axis, (old, flip) in enumerate(zip(order, flips, strict=True)):
        affine[:3, axis] = geometry.affine[:3, old] * (-1.0 if flip else 1.0)
        if flip:
            affine[:3, 3] += geometry.affine[:3, old] * (geometry.shape[old] - 1)
    turned = array.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return turned, Geometry(turned.shape, affine)


def result_on(scan: Scan, lesions: LesionMap, **changes: object) -> CaseResult:
    """A case result on a DICOM scan, with these lesions."""
    from tests.reports.cases import make_result

    volume = medseg.load_volume(scan)
    made = make_result(volume.array[0], lesions.array, scan.geometry, case_id=scan.case_id, modality="CT", **changes)  # type: ignore[arg-type]
    provenance = made.provenance.model_copy(update={"notes": volume.notes})
    table = medseg.measure_lesions(lesions, volume, scan.case_id)
    return replace(made, scan=scan, volume=volume, lesions=lesions, table=table, provenance=provenance)
