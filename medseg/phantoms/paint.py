"""Paint: from tissues and lesions to the intensities that a scanner would give.

PET in SUV: uptake, blurred by the scanner's 6 mm, with correlated noise that grows with the uptake. CT in HU: blurred
by 1 mm, with the same noise everywhere in the body.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.phantoms.body import Body, Texture, Tissue
from medseg.phantoms.grid import sample
from medseg.phantoms.scene import PlacedLesion
from medseg.phantoms.voxels import points_of

__all__ = ["paint_ct", "paint_pet"]

_FWHM_PER_SIGMA = 2.3548200450309493  # 2 sqrt(2 ln 2)

_PET_SUV = {
    Tissue.AIR: 0.0,
    Tissue.FAT: 0.30,
    Tissue.MUSCLE: 0.65,
    Tissue.CORTEX: 0.35,
    Tissue.MARROW: 0.75,
    Tissue.VESSEL: 1.2,
    Tissue.WARM: 1.9,
}
_PET_CORE_SUV = 0.4
_PET_FWHM_MM = 6.0
_PET_NOISE_FWHM_MM = 5.0
_PET_NOISE = 0.08  # standard deviation in SUV at SUV 1; grows with the root of the uptake, as counts do
_PET_TEXTURE = 0.15  # share of the uptake

_CT_HU = {
    Tissue.AIR: -1000.0,
    Tissue.FAT: -100.0,
    Tissue.MUSCLE: 40.0,
    Tissue.CORTEX: 400.0,
    Tissue.MARROW: 60.0,
    Tissue.VESSEL: 90.0,
    Tissue.WARM: 55.0,
}
_CT_CORE_HU = 20.0
_CT_FWHM_MM = 1.0
_CT_NOISE_FWHM_MM = 1.5
_CT_NOISE_HU = 10.0
_CT_TEXTURE_HU = 5.0
_CT_LOWEST_HU, _CT_HIGHEST_HU = -1024.0, 3071.0


def paint_pet(
    geometry: Geometry,
    body: Body,
    texture: Texture,
    lesions: Sequence[tuple[PlacedLesion, float]],
    noise: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """(I, J, K) float32, SUV, never below 0; each lesion comes with its uptake in SUV.

    `noise` multiplies the noise; 0 leaves it out.
    """
    uptake = _with_lesions(_tissue_values(geometry, body, _PET_SUV), lesions, _PET_CORE_SUV, geometry)
    uptake *= np.maximum(
        np.float32(1.0) + np.float32(_PET_TEXTURE) * sample(geometry, texture.at, np.float32), np.float32(0.0)
    )
    clean = _blurred(uptake, _PET_FWHM_MM, geometry)
    if noise > 0.0:
        deviation = np.float32(noise * _PET_NOISE) * np.sqrt(np.maximum(clean, 0.0))
        clean += deviation * _correlated_noise(geometry, _PET_NOISE_FWHM_MM, rng)
    return np.maximum(clean, np.float32(0.0))


def paint_ct(
    geometry: Geometry,
    body: Body,
    texture: Texture,
    lesions: Sequence[tuple[PlacedLesion, float]],
    noise: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """(I, J, K) float32, HU in -1024..3071; each lesion comes with its HU.

    `noise` multiplies the noise; 0 leaves it out.
    """
    tissue = _tissue_values(geometry, body, _CT_HU)
    in_body = tissue > _CT_HU[Tissue.AIR]
    values = _with_lesions(tissue, lesions, _CT_CORE_HU, geometry)
    values += np.float32(_CT_TEXTURE_HU) * sample(geometry, texture.at, np.float32) * in_body
    values = _blurred(values, _CT_FWHM_MM, geometry)
    if noise > 0.0:
        values += np.float32(noise * _CT_NOISE_HU) * _correlated_noise(geometry, _CT_NOISE_FWHM_MM, rng)
    return np.clip(values, np.float32(_CT_LOWEST_HU), np.float32(_CT_HIGHEST_HU))


def _tissue_values(geometry: Geometry, body: Body, values: Mapping[Tissue, float]) -> NDArray[np.float32]:
    lookup = np.array([values[tissue] for tissue in Tissue], dtype=np.float32)
    painted: NDArray[np.float32] = lookup[sample(geometry, body.tissues, np.uint8)]
    return painted


def _with_lesions(
    values: NDArray[np.float32], lesions: Sequence[tuple[PlacedLesion, float]], core: float, geometry: Geometry
) -> NDArray[np.float32]:
    """The values with each lesion's own voxels painted over: its intensity where it takes up, `core` where not."""
    for lesion, intensity in lesions:
        share = lesion.shape.uptake(points_of(lesion.voxels, geometry))
        values[lesion.voxels.box][lesion.voxels.mask] = core + (intensity - core) * share
    return values


def _blurred(values: NDArray[np.float32], fwhm_mm: float, geometry: Geometry) -> NDArray[np.float32]:
    sigmas = [fwhm_mm / _FWHM_PER_SIGMA / spacing for spacing in geometry.spacing]
    # "nearest": the body goes on beyond the ends of the scan
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(values, sigmas, mode="nearest")
    return blurred


def _correlated_noise(geometry: Geometry, fwhm_mm: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(I, J, K) float32 noise of mean 0 and standard deviation 1, smooth on the scale of the reconstruction."""
    noise = _blurred(rng.standard_normal(geometry.shape, dtype=np.float32), fwhm_mm, geometry)
    deviation = float(noise.std())
    return noise / deviation if deviation > 0.0 else noise
