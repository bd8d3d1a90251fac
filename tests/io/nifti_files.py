"""Small NIfTI files made by nibabel, with known voxels and a known place in the patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

AFFINE = np.array([[-1.5, 0.0, 0.0, 40.0], [0.0, 2.0, 0.0, -30.0], [0.0, 0.0, 3.0, 7.5], [0.0, 0.0, 0.0, 1.0]])


def save(array: NDArray[Any], path: Path, affine: NDArray[np.float64] = AFFINE, **fields: Any) -> Path:
    """Save an array by nibabel, then overwrite header fields in the (unpacked) file; returns the path."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    if fields:
        patch(path, **fields)
    return path


def patch(path: Path, **fields: Any) -> None:
    """Overwrite fields of a NIfTI-1 header on disk, without any check."""
    data = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(data[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    data[:348] = header.binaryblock
    path.write_bytes(data)
