"""A small PET scan with known lesions, and the result of a run on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cli.commands import run_well
from tests.io.nifti_files import save


def hot_spots() -> NDArray[np.int16]:
    """(24, 24, 20) whole numbers: body at 1, a box of 8 x 6 x 5 voxels and one of 4 x 4 x 4 at 12."""
    scan = np.ones((24, 24, 20), dtype=np.int16)
    scan[3:11, 4:10, 5:10] = 12
    scan[15:19, 14:18, 10:14] = 12
    return scan


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    """The scan as a NIfTI file in its own folder."""
    (tmp_path / "in").mkdir()
    return save(hot_spots().astype(np.float32), tmp_path / "in" / "pet.nii.gz")


@pytest.fixture
def segmented(tmp_path: Path, scan_file: Path, tiny_bundle: Path) -> Path:
    """The folder of a run on the scan."""
    run_well("segment", scan_file, "--model", tiny_bundle, "-o", tmp_path / "out", "--quiet")
    return tmp_path / "out"
