"""Evidence on disk: what a network says of the lesions' centers, to separate lesions again without the network.

`evidence.nii.gz` holds four float32 values a voxel on the evidence's own grid, as a NIfTI-2 file of vectors: the center
heat, then the offset to the lesion's center in mm along the first, second and third axis of the grid.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from nibabel.volumeutils import apply_read_scaling

from medseg.core.evidence import InstanceEvidence
from medseg.errors import InvalidLabelMap, ScanNotFound
from medseg.io.memory import check_fits_memory
from medseg.io.nifti import write_vectors
from medseg.io.nifti_header import read_nifti_header
from medseg.io.voxel_bytes import read_voxel_bytes

__all__ = ["EVIDENCE_FILE", "read_evidence", "write_evidence"]

EVIDENCE_FILE = "evidence.nii.gz"
_N_VALUES = 4


def write_evidence(evidence: InstanceEvidence, path: str | PathLike[str]) -> None:
    """Write evidence to a file that ends in .nii or .nii.gz; what is read back is the same to the bit of float32.

    Raises
    ------
    OutputNotWritable, UsageError
        As `medseg.io.nifti.write_labels`.
    """
    values = np.stack([evidence.center, *evidence.offsets_mm]).astype(np.float32)
    write_vectors(values, evidence.geometry, path, name="medseg evidence")


def read_evidence(path: str | PathLike[str]) -> InstanceEvidence:
    """Read evidence, as `medseg segment --save-evidence` writes it.

    Parameters
    ----------
    path
        A NIfTI file of four values a voxel, or a folder with `evidence.nii.gz` in it.

    Raises
    ------
    ScanNotFound
        If there is no such file.
    UnreadableImage, InvalidGeometry, ScanTooLarge
        As `medseg.read_semantic`.
    UnsupportedDimensions
        If voxels do not have four values.
    InvalidLabelMap
        If a value is NaN or infinite.
    """
    file = Path(path)
    if file.is_dir():
        file = file / EVIDENCE_FILE
        if not file.exists():
            raise ScanNotFound(
                f"{path} holds no {EVIDENCE_FILE}; medseg segment --save-evidence writes it where the model has "
                "instance heads and sees something"
            )
    header = read_nifti_header(file, n_values=_N_VALUES).volume
    check_fits_memory(2 * header.source.n_bytes, str(file))
    payload, _ = read_voxel_bytes(header.source)
    stored = np.ndarray((*header.geometry.shape, _N_VALUES), header.dtype, buffer=payload, order="F")
    values = np.asarray(apply_read_scaling(stored, header.slope, header.intercept), dtype=np.float32)
    if not np.isfinite(values).all():
        raise InvalidLabelMap(f"{file}: evidence holds finite numbers only; some here are NaN or infinite")
    return InstanceEvidence(values[..., 0], np.moveaxis(values[..., 1:], -1, 0), header.geometry)
