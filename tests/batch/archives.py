"""Small archives with known lesions and known faults, and what a batch left."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.batch.tables import TABLE_FILES
from tests.io.nifti_files import save


def make_archive(folder: Path, n_scans: int, n_bad: int = 0) -> Path:
    """A tree of NIfTI scans; scan n holds n % 3 lesions at 12, the bad ones are damaged in three ways."""
    for number in range(n_scans):
        place = folder / f"p{number % 7}"
        place.mkdir(parents=True, exist_ok=True)
        array = np.ones((16, 16, 12), dtype=np.float32)
        array[0, 0, 0] = number / 1000  # no two scans have the same bytes
        for lesion in range(number % 3):
            array[2 + 8 * lesion : 6 + 8 * lesion, 3:9, 4:8] = 12.0
        save(array, place / f"scan_{number:03d}.nii")
    for number in range(n_bad):
        place = folder / f"p{number % 7}"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"bad_{number:03d}.nii"
        array = np.ones((16, 16, 12), dtype=np.float32)
        array[1, 1, 1] = np.nan if number % 3 == 2 else 1.0
        save(array, path)
        if number % 3 == 0:
            path.write_bytes(path.read_bytes()[:400])
        elif number % 3 == 1:
            path.write_bytes(b"no image at all" * 100)
    return folder


def tables(output: Path) -> dict[str, bytes]:
    """The bytes of the tables of a batch."""
    return {name: (output / name).read_bytes() for name in TABLE_FILES}


def temporary_files(output: Path) -> list[Path]:
    """What a killed process may have left."""
    return [path for path in output.rglob("*") if path.name.startswith(".tmp-")]
