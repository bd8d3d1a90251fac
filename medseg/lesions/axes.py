"""Axes of each lesion from the second moments of its voxels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.choice import Choice
from medseg.core.table import Value
from medseg.lesions.bodies import LesionVoxels
from medseg.lesions.crofton import ellipsoid_area

__all__ = ["AXIS_COLUMNS", "axis_columns"]

AXIS_COLUMNS = (
    *(f"{of}{which}_axis_mm" for of in ("", "ellipsoid_") for which in ("major", "minor", "least")),
    *("elongation", "flatness", "volume_density_ellipsoid", "area_density_ellipsoid"),
)
"""What `axis_columns` gives."""

_FLAT = 1e-12


def axis_columns(voxels: LesionVoxels, meshes: Mapping[str, Sequence[float]], choice: Choice) -> dict[str, list[Any]]:
    """Axes of the IBSI from the covariance of the centers, and of the solid ellipsoid with voxels as solid boxes.

    Parameters
    ----------
    voxels
        Of lesions 1..n.
    meshes
        "mesh_volume_ml" and "mesh_area_mm2", n each, for the densities that are chosen.
    choice
        Which columns are wanted.

    References
    ----------
    Zwanenburg A et al. Image biomarker standardisation initiative, reference manual (2019), section 3.1.
    """
    basis, counts = voxels.geometry.affine[:3, :3], voxels.counts[:, None, None]
    products = basis @ voxels.scatter @ basis.T
    spread = np.maximum(np.linalg.eigvalsh(products / np.maximum(counts - 1, 1))[:, ::-1], 0.0)
    spread[spread <= _FLAT * np.maximum(spread[:, :1], 1e-300)] = 0.0
    solid = np.linalg.eigvalsh(products / counts + basis @ basis.T / 12.0)[:, ::-1]
    axes, solid_axes = 4.0 * np.sqrt(spread), 2.0 * np.sqrt(5.0 * solid)
    is_long, is_solid = voxels.counts > 1, spread[:, 2] > 0.0
    longest = np.where(is_long, axes[:, 0], 1.0)
    columns: dict[str, list[Any]] = {
        "elongation": _where(is_long, axes[:, 1] / longest),
        "flatness": _where(is_long, axes[:, 2] / longest),
    }
    for place, which in enumerate(("major", "minor", "least")):
        columns[f"{which}_axis_mm"] = _where(is_long, axes[:, place])
        columns[f"ellipsoid_{which}_axis_mm"] = solid_axes[:, place].tolist()
    bodies = np.where(is_solid[:, None], axes, 1.0)
    if choice.holds("volume_density_ellipsoid"):
        volumes = math.pi / 6.0 * bodies.prod(axis=1)
        columns["volume_density_ellipsoid"] = _where(is_solid, 1000.0 * np.array(meshes["mesh_volume_ml"]) / volumes)
    if choice.holds("area_density_ellipsoid"):
        areas = ellipsoid_area(bodies / 2.0)
        columns["area_density_ellipsoid"] = _where(is_solid, np.array(meshes["mesh_area_mm2"]) / areas)
    return columns


def _where(is_defined: NDArray[np.bool_], values: NDArray[np.float64]) -> list[Value]:
    return [value if defined else None for defined, value in zip(is_defined.tolist(), values.tolist(), strict=True)]
