"""What the cases of a data set have in common: grids, extents, intensities inside lesions, sizes of lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.io.labelled_cases import LabelledCase
from medseg.io.manifest import DataManifest
from medseg.io.scan import load_volume
from medseg.training.validation import reference_lesions

__all__ = ["Fingerprint", "take_fingerprint"]

_EXTENT_PERCENTILE = 100  # a window that holds every scan whole shows the network all there is around a lesion
_SAMPLES_PER_CASE = 2000


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What the cases of a data set have in common.

    Parameters
    ----------
    spacing_mm
        (3,) median voxel spacing in mm along patient x, y, z.
    extent_mm
        (3,) size in mm along patient x, y, z that no scan exceeds.
    typical_mm
        (3,) median size of the scans in mm along patient x, y, z.
    foreground
        One array a channel: sampled stored intensities inside the reference lesions.
    zero_shares
        One share a channel: of the voxels of a scan that are exactly 0, as outside a brain that was cut out; median.
    lesions_mm3
        Case and volume of each reference lesion.
    total_mm3
        Volume of all scans together, as far as they are to be held in memory.
    """

    spacing_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    typical_mm: tuple[float, float, float]
    foreground: tuple[NDArray[np.float32], ...]
    zero_shares: tuple[float, ...]
    lesions_mm3: tuple[tuple[str, float], ...] = ()
    total_mm3: float = 0.0


def take_fingerprint(cases: Sequence[LabelledCase], manifest: DataManifest) -> Fingerprint:
    """Look at all cases: grids from the headers, lesions, and a seeded sample of intensities inside them."""
    spacings = [_by_patient_axis(case, case.scan.geometry.spacing) for case in cases]
    extents = [
        _by_patient_axis(case, np.array(case.scan.geometry.spacing) * case.scan.geometry.shape) for case in cases
    ]
    units = [channel.units for channel in manifest.channels]
    samples, zero_shares = [], []
    for number, case in enumerate(cases):
        array = load_volume(case.scan, units=units).array
        inside = array[:, case.reference.array > 0]
        zero_shares.append((array == 0).mean(axis=(1, 2, 3)))
        rng = np.random.default_rng(number)
        samples.append(inside[:, rng.permutation(inside.shape[1])[:_SAMPLES_PER_CASE]])
    return Fingerprint(
        _percentile(spacings, 50),
        _percentile(extents, _EXTENT_PERCENTILE),
        _percentile(extents, 50),
        tuple(np.concatenate(samples, axis=1)),
        tuple(np.median(zero_shares, axis=0).tolist()),
        tuple((case.case_id, size) for case in cases for size in _lesion_sizes(case)),
        float(sum(np.prod(extent) for extent in extents)),
    )


def _lesion_sizes(case: LabelledCase) -> list[float]:
    """Cubic millimeters of each lesion."""
    lesions = reference_lesions(case)
    counts = np.bincount(lesions.array.ravel(), minlength=lesions.n_lesions + 1)[1:]
    sizes: list[float] = (counts * case.scan.geometry.voxel_volume_mm3).tolist()
    return sizes


def _by_patient_axis(case: LabelledCase, per_voxel_axis: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """Numbers along i, j, k put in the order of the patient's x, y, z."""
    order = ["RL".find, "AP".find, "SI".find]
    codes = case.scan.geometry.axcodes
    return [float(per_voxel_axis[next(v for v in range(3) if find(codes[v]) >= 0)]) for find in order]


def _percentile(rows: list[list[float]], percentile: float) -> tuple[float, float, float]:
    x, y, z = np.round(np.percentile(np.array(rows), percentile, axis=0), 4).tolist()
    return (x, y, z)
