"""The rules of planning, one function each: what is chosen, and why, in words.

References
----------
Isensee et al., nnU-Net, Nature Methods 2021: median spacing, and a coarser grid where a patch holds little of a scan;
patch of the scans' aspect within a budget, intensity clipping at foreground percentiles or z-scores by modality,
mirroring at test time as in training.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medseg.core.plan import UNCLIPPED_STD, IntensityPlan, NetworkPlan, SeparationPlan
from medseg.core.recipe import smallest_divisor
from medseg.io.manifest import DataManifest, ManifestChannel
from medseg.training.fingerprint import Fingerprint

__all__ = [
    "PATCH_VOXELS",
    "STEPS",
    "choose_deep_supervision",
    "choose_intensity",
    "choose_least_peak",
    "choose_network",
    "choose_patch",
    "choose_phantom_share",
    "choose_separation",
    "choose_spacing",
    "find_lesions_below_the_grid",
]

PATCH_VOXELS = 64 * 64 * 112
"""What one CPU core trains on in about half a second."""

_SUV_HIGH = 25.0  # uptake above this adds nothing to knowing that it is tumor
_ROUNDING = 0.1  # of the divisor: a scan may stick out of the window by less than a voxel
_PHANTOM_SHARE = 0.12
_WITH_A_UNIT = ("CT", "PT")  # what a stored value of 100 means is the same in every scan
_CUT_OUT_SHARE = 0.25  # of zeros: the scan was masked, as a brain whose skull was taken off
_LEAST_PEAK_SUV = 1.0  # the uptake of a body that takes up evenly: what stays below takes up nothing of its own
_MEMBERS = 5
STEPS = 1000  # of each network
_SMALL_SHARE = 0.1  # of the lesions are smaller than those that a coarser grid must show well
_VOXELS_OF_A_SMALL_LESION = 1000  # ten voxels across: what interpolated probabilities outline well
_WORTH_COARSENING = 1.25  # times the voxel; less would only blur
_LEAST_VOXELS = 2.0  # of a lesion on the network's grid
_MOST_NAMED = 5

Triple = tuple[int, int, int]
Spacing = tuple[float, float, float]


def choose_spacing(fingerprint: Fingerprint, n_voxels: int = PATCH_VOXELS) -> tuple[Spacing, str]:
    """The median spacing of the scans; coarser where a window then holds a scan whole and lesions are large enough."""
    own = fingerprint.spacing_mm
    median = "median voxel spacing of the scans along patient x, y, z"
    sizes = [size for _, size in fingerprint.lesions_mm3]
    needed_mm3 = math.prod(fingerprint.typical_mm) / n_voxels
    allowed_mm3 = float(np.quantile(sizes, _SMALL_SHARE)) / _VOXELS_OF_A_SMALL_LESION if sizes else 0.0
    voxel_mm3 = min(needed_mm3, allowed_mm3)
    if voxel_mm3 < _WORTH_COARSENING * math.prod(own):
        return own, median
    held = "holds a typical scan whole" if needed_mm3 <= allowed_mm3 else "holds more of a scan"
    shown = " x ".join(f"{s:g}" for s in own)
    return _coarsened(own, voxel_mm3), (
        f"coarser than {shown}, the {median}: a window of {n_voxels:,} voxels then {held}, and nine of ten lesions "
        f"still have {_VOXELS_OF_A_SMALL_LESION} voxels or more"
    )


def _coarsened(spacing_mm: Spacing, voxel_mm3: float) -> Spacing:
    """The finest axes first, up to the next coarser one, until a voxel has this volume."""
    order = sorted(range(3), key=lambda axis: spacing_mm[axis])
    level = 0.0
    for n_raised in (1, 2, 3):
        level = (voxel_mm3 / math.prod(spacing_mm[axis] for axis in order[n_raised:])) ** (1 / n_raised)
        if n_raised == 3 or level <= spacing_mm[order[n_raised]]:
            break
    x, y, z = (round(max(one, level), 2) if one < level else one for one in spacing_mm)
    return x, y, z


def choose_network() -> tuple[NetworkPlan, str]:
    """Networks whose first level keeps the full resolution."""
    plan = NetworkPlan(
        kind="segresnet",
        filters=(8, 16, 32, 64),
        residual_units=(1, 2, 2, 4),
        members=_MEMBERS,
        weights_dtype="float16",
    )
    return plan, (
        "features at full resolution from the first level on, for small lesions; few filters, for a CPU; the mean of "
        f"{_MEMBERS} networks errs less than one; weights of half the size"
    )


def choose_patch(
    fingerprint: Fingerprint, spacing_mm: Spacing, network: NetworkPlan, n_voxels: int = PATCH_VOXELS
) -> tuple[Triple, str]:
    """The scans' aspect within a number of voxels, each side a multiple of what the network divides it by."""
    divisor = smallest_divisor(network)
    shape = np.array(fingerprint.extent_mm) / spacing_mm
    factor = min(1.0, (n_voxels / float(np.prod(shape))) ** (1 / 3))
    i, j, k = (max(1, math.ceil(side * factor / d - _ROUNDING)) * d for side, d in zip(shape, divisor, strict=True))
    largest = " x ".join(f"{side:.0f}" for side in shape)
    what = (
        f"holds every scan whole (the largest is {largest} voxels)"
        if factor == 1.0
        else f"aspect of the scans (up to {largest} voxels) within {n_voxels:,} voxels"
    )
    return (i, j, k), f"{what}, rounded up to multiples of {divisor}"


def choose_intensity(
    channel: ManifestChannel, inside: NDArray[np.float32], zero_share: float
) -> tuple[IntensityPlan, str]:
    """Uptake by its root; what has no unit by each scan's own values; else clipped, centered, scaled as lesions are."""
    if channel.units == "suv":
        # air becomes -1, so that it differs from the 0 that lies beyond the scan
        plan = IntensityPlan(low=0.0, high=_SUV_HIGH, transform="sqrt", shift=1.0)
        return plan, "square root: uptake spans two orders of magnitude; air is not the 0 that lies beyond a scan"
    if channel.modality not in _WITH_A_UNIT:
        what = "a modality without a name" if channel.modality == "OT" else channel.modality
        why = f"{what} has no unit: the same tissue has other values in each scan"
        if zero_share > _CUT_OUT_SHARE:
            why += f"; {100 * zero_share:.0f} % of a scan are exactly 0, cut out, and say nothing of tissue"
        how: Literal["nonzero", "scan"] = "nonzero" if zero_share > _CUT_OUT_SHARE else "scan"
        return IntensityPlan(low=-UNCLIPPED_STD, high=UNCLIPPED_STD, standardize=how), why
    low, high = (round(float(p), 3) for p in np.percentile(inside, (0.5, 99.5)))
    clipped = np.clip(inside, low, high)
    plan = IntensityPlan(
        low=low, high=high, shift=round(float(clipped.mean()), 3), scale=max(round(float(clipped.std()), 3), 1e-3)
    )
    return plan, "clipped at the 0.5 and 99.5 percentiles inside lesions, then their mean 0 and standard deviation 1"


def choose_least_peak(manifest: DataManifest) -> tuple[float | None, str]:
    """Below the uptake of a body that takes up evenly nothing is a lesion."""
    if manifest.channels[0].units == "suv":
        return _LEAST_PEAK_SUV, "a region that nowhere reaches the uptake of an even body is no lesion"
    return None, "only SUV has a level that every lesion reaches"


def choose_separation(spacing_mm: Spacing) -> tuple[SeparationPlan, str]:
    """A core that rises less than a voxel above the pass to its neighbor is the grid's doing."""
    return SeparationPlan(h_min_mm=max(spacing_mm)), "a core must rise by a voxel above the pass to its neighbor"


def choose_phantom_share(manifest: DataManifest) -> tuple[float, str]:
    """PET phantoms help where they look like the cases: one channel in SUV, and one class of lesion."""
    if [channel.units for channel in manifest.channels] == ["suv"] and len(manifest.labels) == 1:
        return _PHANTOM_SHARE, "PET phantoms look like the scans, and show several lesions and none"
    return 0.0, "phantoms look like PET in SUV with one class of lesion, not like these scans"


def choose_deep_supervision() -> tuple[bool, str]:
    """Off: `benchmarks/accuracy_deep_supervision.py` compares both."""
    return False, "not shown to help a network of few filters trained for so few steps; a plan can turn it on"


def find_lesions_below_the_grid(fingerprint: Fingerprint, spacing_mm: Spacing) -> str | None:
    """A warning where reference lesions are smaller than two voxels of the network's grid; None where none are."""
    voxel_mm3 = math.prod(spacing_mm)
    small = [(case, size) for case, size in fingerprint.lesions_mm3 if size < _LEAST_VOXELS * voxel_mm3 * (1 - 1e-6)]
    if not small:
        return None
    names = sorted({case for case, _ in small})
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    case, least = min(small, key=lambda one: one[1])
    grid = " x ".join(f"{s:g}" for s in spacing_mm)
    return (
        f"{len(small)} of {len(fingerprint.lesions_mm3)} reference lesions are smaller than {_LEAST_VOXELS:g} voxels "
        f"of the network's grid ({grid} mm, {voxel_mm3 / 1000:.3g} ml a voxel), the smallest {least / 1000:.3g} ml in "
        f"{case}; the network can hardly learn or find such lesions ({', '.join(names[:_MOST_NAMED])}{more}). A finer "
        "spacing_mm in the plan holds them"
    )
