"""From a data manifest to a plan: what the cases look like decides grid, patch and intensities.

References
----------
Isensee et al., nnU-Net, Nature Methods 2021: median spacing, patch of the scans' aspect within a budget, intensity
clipping at foreground percentiles, mirroring at test time as in training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medseg.core.plan import (
    ChannelPlan,
    InferencePlan,
    IntensityPlan,
    NetworkPlan,
    Plan,
    SeparationPlan,
    TrainingPlan,
)
from medseg.core.recipe import smallest_divisor
from medseg.io.labelled_cases import LabelledCase
from medseg.io.manifest import DataManifest, ManifestChannel
from medseg.io.scan import load_volume

__all__ = ["Fingerprint", "plan_training", "take_fingerprint"]

_PATCH_VOXELS = 64 * 64 * 112  # what one CPU core trains on in about half a second
_EXTENT_PERCENTILE = 100  # a window that holds every scan whole shows the network all there is around a lesion
_SUV_HIGH = 25.0  # uptake above this adds nothing to knowing that it is tumor
_SAMPLES_PER_CASE = 2000
_ROUNDING = 0.1  # of the divisor: a scan may stick out of the window by less than a voxel
_PHANTOM_SHARE = 0.12
_LEAST_PEAK_SUV = 1.0  # the uptake of a body that takes up evenly: what stays below takes up nothing of its own
_MEMBERS = 2


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What the cases of a data set have in common.

    Parameters
    ----------
    spacing_mm
        (3,) median voxel spacing in mm along patient x, y, z.
    extent_mm
        (3,) size in mm along patient x, y, z that no scan exceeds.
    foreground
        One array a channel: sampled stored intensities inside the reference lesions.
    """

    spacing_mm: tuple[float, float, float]
    extent_mm: tuple[float, float, float]
    foreground: tuple[NDArray[np.float32], ...]


def take_fingerprint(cases: Sequence[LabelledCase], manifest: DataManifest) -> Fingerprint:
    """Look at all cases: grids from the headers, and a seeded sample of intensities inside the references."""
    spacings = [_by_patient_axis(case, case.scan.geometry.spacing) for case in cases]
    extents = [
        _by_patient_axis(case, np.array(case.scan.geometry.spacing) * case.scan.geometry.shape) for case in cases
    ]
    units = [channel.units for channel in manifest.channels]
    samples = []
    for number, case in enumerate(cases):
        inside = load_volume(case.scan, units=units).array[:, case.reference.array > 0]
        rng = np.random.default_rng(number)
        samples.append(inside[:, rng.permutation(inside.shape[1])[:_SAMPLES_PER_CASE]])
    spacing, extent = _percentile(spacings, 50), _percentile(extents, _EXTENT_PERCENTILE)
    return Fingerprint(spacing, extent, tuple(np.concatenate(samples, axis=1)))


def plan_training(manifest: DataManifest, fingerprint: Fingerprint) -> Plan:
    """The plan that suits a data set; every field of it can be changed before training."""
    network = NetworkPlan(kind="segresnet", filters=(8, 16, 32, 64), residual_units=(1, 2, 2, 4), members=_MEMBERS)
    shape = np.array(fingerprint.extent_mm) / fingerprint.spacing_mm
    return Plan(
        name=manifest.name,
        channels=tuple(
            ChannelPlan(
                name=channel.name,
                modality=channel.modality,
                units=channel.units,
                intensity=_intensity(channel, inside),
            )
            for channel, inside in zip(manifest.channels, fingerprint.foreground, strict=True)
        ),
        labels=manifest.scheme,
        spacing_mm=fingerprint.spacing_mm,
        network=network,
        inference=InferencePlan(
            patch_size=_patch(shape, smallest_divisor(network)),
            mirror_axes=(0, 1, 2),
            least_peak=_LEAST_PEAK_SUV if manifest.channels[0].units == "suv" else None,
        ),
        # a core that rises less than a voxel above the pass to its neighbor is the grid's doing
        separation=SeparationPlan(h_min_mm=max(fingerprint.spacing_mm)),
        training=TrainingPlan(phantom_share=_PHANTOM_SHARE if _phantoms_suit(manifest) else 0.0),
    )


def _phantoms_suit(manifest: DataManifest) -> bool:
    """Whether PET phantoms look like the cases: one channel in SUV, and one class of lesion."""
    return [channel.units for channel in manifest.channels] == ["suv"] and len(manifest.labels) == 1


def _by_patient_axis(case: LabelledCase, per_voxel_axis: Sequence[float] | NDArray[np.float64]) -> list[float]:
    """Numbers along i, j, k put in the order of the patient's x, y, z."""
    order = ["RL".find, "AP".find, "SI".find]
    codes = case.scan.geometry.axcodes
    return [float(per_voxel_axis[next(v for v in range(3) if find(codes[v]) >= 0)]) for find in order]


def _percentile(rows: list[list[float]], percentile: float) -> tuple[float, float, float]:
    x, y, z = np.round(np.percentile(np.array(rows), percentile, axis=0), 4).tolist()
    return (x, y, z)


def _intensity(channel: ManifestChannel, inside: NDArray[np.float32]) -> IntensityPlan:
    if channel.units == "suv":
        # air becomes -1, so that it differs from the 0 that lies beyond the scan
        return IntensityPlan(low=0.0, high=_SUV_HIGH, transform="sqrt", shift=1.0)
    low, high = (round(float(p), 3) for p in np.percentile(inside, (0.5, 99.5)))
    clipped = np.clip(inside, low, high)
    return IntensityPlan(
        low=low, high=high, shift=round(float(clipped.mean()), 3), scale=max(round(float(clipped.std()), 3), 1e-3)
    )


def _patch(shape: NDArray[np.float64], divisor: tuple[int, int, int]) -> tuple[int, int, int]:
    """The scans' aspect within the voxel budget, each side a multiple of what the network divides it by."""
    factor = min(1.0, (_PATCH_VOXELS / float(np.prod(shape))) ** (1 / 3))
    i, j, k = (max(1, math.ceil(side * factor / d - _ROUNDING)) * d for side, d in zip(shape, divisor, strict=True))
    return (i, j, k)
