"""Paint of a crowd: tissue, lesions, and the seam between two lesions that touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.phantoms.body import draw_texture

__all__ = ["BlockKind", "paint_block"]

BlockKind = Literal["ct", "pet"]

_FWHM_PER_SIGMA = 2.3548200450309493  # 2 sqrt(2 ln 2)
_SEAM = (0.35, 0.8)  # share of the lesion's contrast that is missing in a seam
_SEAM_VOXELS = 2.0  # thickness of a seam, in voxels of the slices' plane
_SEEN = 3.0  # standard deviations of the noise, at least, by which a visible seam differs from the lesion (Rose 1948)
_SPREAD = 0.2  # share of the contrast by which lesions in contact differ


@dataclass(frozen=True)
class _Look:
    """Tissue and lesions of a kind of scan: intensity of the tissue, contrast of lesions, blur in mm, noise."""

    tissue: tuple[float, float]
    contrast: tuple[float, float]
    texture: float
    fwhm_mm: float
    noise: tuple[float, float]
    noise_fwhm_mm: float


_LOOKS = {
    "ct": _Look((40.0, 110.0), (60.0, 140.0), texture=4.0, fwhm_mm=1.2, noise=(5.0, 11.0), noise_fwhm_mm=1.5),
    "pet": _Look((0.5, 1.2), (2.5, 14.0), texture=0.1, fwhm_mm=6.0, noise=(0.05, 0.1), noise_fwhm_mm=5.0),
}


def paint_block(
    kind: BlockKind,
    fine: Geometry,
    owner: NDArray[np.int32],
    groups: NDArray[np.int32],
    rng: np.random.Generator,
    *,
    is_seam_visible: bool,
    n_layers: int = 1,
) -> NDArray[np.float32]:
    """Intensities of a block.

    Parameters
    ----------
    kind
        "ct" (HU) or "pet" (SUV).
    fine
        The grid, finer than the slices.
    owner
        (I, J, K) which lesion owns each voxel, 0 for tissue.
    groups
        (n + 1,) group of each lesion; lesions of one group are in contact.
    rng
        Source of intensities, texture and noise.
    is_seam_visible
        Whether lesions in contact differ and have a layer of other tissue between them; else they look as one. The
        layer lies in the larger of the two, as a small lesion would be all seam; it is two voxels thick (along k a
        slice, about), or a quarter of that lesion's diameter if that is less, at least one voxel. It differs from the
        lesion by at least three standard deviations of the noise before blur, or where the lesion itself differs less
        from the tissue, by all of that: what is thinner or fainter would vanish in the scan.
    n_layers
        How many layers of the grid make a slice.

    Returns
    -------
    (I, J, K) float32.
    """
    look = _LOOKS[kind]
    tissue = float(rng.uniform(*look.tissue))
    values = np.full(fine.shape, tissue, dtype=np.float32)
    values += np.float32(look.texture) * _texture(fine, rng)
    contrast = _contrasts(look, groups, rng, is_dark=kind == "ct" and rng.random() < 0.5, differs=is_seam_visible)
    deviation = float(rng.uniform(*look.noise))
    lesions = contrast[owner]
    if is_seam_visible:
        drop = np.maximum(
            float(rng.uniform(*_SEAM)) * np.abs(contrast), _SEEN * _deviations(kind, deviation, tissue, contrast)
        )
        lesions -= (np.sign(contrast) * np.minimum(drop, np.abs(contrast))).astype(np.float32)[owner] * _is_seam(
            owner, n_layers
        )
    values = _blurred(values + lesions, look.fwhm_mm, fine)
    return values + _noise(look, kind, values, fine, deviation, rng)


def _deviations(kind: BlockKind, deviation: float, tissue: float, contrast: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n + 1,) standard deviation of the noise in each lesion."""
    uptake = np.maximum(tissue + contrast.astype(np.float64), 0.0)
    return deviation * (np.sqrt(uptake) if kind == "pet" else np.ones(len(contrast)))


def _contrasts(
    look: _Look, groups: NDArray[np.int32], rng: np.random.Generator, *, is_dark: bool, differs: bool
) -> NDArray[np.float32]:
    """(n + 1,) contrast of each lesion to the tissue; one for a group, about which its members differ or not."""
    low, high = np.log(look.contrast)
    of_group = {int(group): float(np.exp(rng.uniform(low, high))) for group in np.unique(groups[1:])}
    spread = rng.uniform(-_SPREAD, _SPREAD, len(groups)) if differs else np.zeros(len(groups))
    contrast = np.array([0.0, *(of_group[int(group)] for group in groups[1:])]) * (1 + spread)
    return (-contrast if is_dark else contrast).astype(np.float32)


def _is_seam(owner: NDArray[np.int32], n_layers: int) -> NDArray[np.bool_]:
    """Voxels of a lesion that are near to a smaller one; half a slice along k is as long as a voxel in the plane."""
    steps = np.array((1.0, 1.0, 1.0 / max(1, n_layers // 2)))
    reach = np.ceil(_SEAM_VOXELS / steps).astype(int)
    counts = np.bincount(owner.ravel())
    is_seam = np.zeros(owner.shape, dtype=bool)
    for number, box in enumerate(ndimage.find_objects(owner), start=1):
        if box is None:
            continue
        wide = tuple(slice(max(0, part.start - r), part.stop + r) for part, r in zip(box, reach.tolist(), strict=True))
        own = owner[wide] == number
        others = np.unique(owner[wide])
        smaller = [n for n in others.tolist() if n and (counts[n], n) < (counts[number], number)]
        if not smaller:
            continue
        radius = np.cbrt(3 * counts[number] * np.prod(steps) / (4 * np.pi))
        thickness = np.clip(radius / 2, 1.0, _SEAM_VOXELS)
        far = ndimage.distance_transform_edt(~np.isin(owner[wide], smaller), sampling=steps)
        is_seam[wide] |= own & (far <= thickness)
    return is_seam


def _texture(fine: Geometry, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth variation of standard deviation 1: plane waves, each the product of one factor an axis."""
    texture = draw_texture(rng)
    total = np.zeros(fine.shape, dtype=np.complex64)
    for wave, phase in zip(texture.waves, texture.phases, strict=True):
        i, j, k = (np.exp(1j * w * s * np.arange(n)) for w, s, n in zip(wave, fine.spacing, fine.shape, strict=True))
        total += np.exp(1j * phase) * i[:, None, None] * j[:, None] * k
    values: NDArray[np.float32] = (total.real * np.sqrt(2 / len(texture.phases))).astype(np.float32)
    return values


def _noise(
    look: _Look,
    kind: BlockKind,
    values: NDArray[np.float32],
    fine: Geometry,
    deviation: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Noise that is the same everywhere (CT), or grows with the root of the uptake (PET)."""
    noise = _blurred(rng.standard_normal(fine.shape, dtype=np.float32), look.noise_fwhm_mm, fine)
    deviation /= max(float(noise.std()), 1e-6)
    # a slice of several layers averages their noise, a scanner's noise does not grow with thinner layers
    scale = np.sqrt(np.maximum(values, 0)) if kind == "pet" else np.float32(1)
    scaled: NDArray[np.float32] = (noise * np.float32(deviation) * scale).astype(np.float32)
    return scaled


def _blurred(values: NDArray[np.float32], fwhm_mm: float, fine: Geometry) -> NDArray[np.float32]:
    sigmas = [fwhm_mm / _FWHM_PER_SIGMA / spacing for spacing in fine.spacing]
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(values, sigmas, mode="nearest")
    return blurred
