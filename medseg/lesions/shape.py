"""Shape of each lesion: mesh, Crofton area, hull, axes, diameters, quality, all from the mask in its own box."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.core.table import Value
from medseg.lesions.bodies import LesionVoxels
from medseg.lesions.crofton import CroftonWeights, crofton_area, crofton_weights, ellipsoid_area
from medseg.lesions.diameters import OUTWARD_PIXELS, SlicePlane, measure_slices
from medseg.lesions.hull import hull_of
from medseg.lesions.mesh import MeshTables, cell_patterns, mesh_tables
from medseg.lesions.shells import padded

__all__ = ["shape_columns"]

_CACHED_BOX_VOXELS = 64  # specks of few voxels repeat one shape many times over
_FLAT = 1e-12


@dataclass(frozen=True, eq=False)
class _Grid:
    """The grid with its axial axis last, and what depends on it alone."""

    order: tuple[int, int, int]
    basis: NDArray[np.float64]
    plane: SlicePlane
    tables: MeshTables
    crofton: CroftonWeights
    voxel_mm3: float

    @classmethod
    def of(cls, geometry: Geometry) -> _Grid:
        axial = geometry.axial_axis
        first, second = (axis for axis in range(3) if axis != axial)
        order = (first, second, axial)
        affine = np.eye(4)
        affine[:3, :3] = geometry.affine[:3, order]
        turned = Geometry((1, 1, 1), affine)
        plane = SlicePlane.of(affine[:3, :3])
        return cls(
            order,
            affine[:3, :3],
            plane,
            mesh_tables(affine[:3, :3]),
            crofton_weights(turned),
            geometry.voxel_volume_mm3,
        )


def shape_columns(voxels: LesionVoxels) -> dict[str, list[Any]]:
    """Columns of size, diameters and shape, entry n - 1 for lesion n.

    Parameters
    ----------
    voxels
        Of lesions 1..n.

    Returns
    -------
    One list a column; the ends of the diameters under "ends": (4, 3) array indices each, fractions of a voxel included.

    References
    ----------
    Zwanenburg A et al. Image biomarker standardisation initiative, reference manual (2019), section 3.1.
    """
    grid = _Grid.of(voxels.geometry)
    known: dict[tuple[tuple[int, ...], bytes], dict[str, Any]] = {}
    rows = []
    for number in range(1, voxels.n_lesions + 1):
        box = voxels.box(number)
        mask = padded((voxels.labels[box] == number).transpose(grid.order), (1, 1, 1))
        key = (mask.shape, mask.tobytes()) if mask.size <= _CACHED_BOX_VOXELS else None
        row = known.get(key) if key else None
        if row is None:
            row = _shape_of(mask, grid)
            if key:
                known[key] = row
        rows.append(row)
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    return _placed(columns, voxels, grid) if rows else columns


def _placed(columns: dict[str, list[Any]], voxels: LesionVoxels, grid: _Grid) -> dict[str, list[Any]]:
    """Slices and ends relative to each lesion's box become indices of the scan."""
    first_slice = voxels.low[:, voxels.geometry.axial_axis]
    for name in ("largest_slice", "diameter_slice"):
        columns[name] = (np.array(columns[name]) + first_slice).tolist()
    back = np.argsort(grid.order)
    columns["ends"] = list(np.stack(columns["ends"])[:, :, back] + voxels.low[:, None])
    return columns


def _shape_of(mask: NDArray[np.bool_], grid: _Grid) -> dict[str, Any]:
    """Everything that does not depend on where the lesion lies; `mask` has a rim of False."""
    inner = mask[1:-1, 1:-1, 1:-1]
    n_voxels = int(np.count_nonzero(inner))
    volume = n_voxels * grid.voxel_mm3
    patterns = cell_patterns(mask)
    mesh_area, mesh_volume = float(patterns @ grid.tables.area_mm2), float(patterns @ grid.tables.volume_mm3)
    hull = hull_of(inner, grid.basis, OUTWARD_PIXELS)
    crofton = crofton_area(inner, grid.crofton)
    box_volume, box_area = _box(inner.shape, grid.basis)
    return {
        **_axes(inner, n_voxels, mesh_area, mesh_volume, grid.basis),
        **_slices(inner, grid),
        **_holes(mask, grid.voxel_mm3),
        "mesh_volume_ml": mesh_volume / 1000.0,
        "equivalent_diameter_mm": _ball_diameter(volume),
        "feret_diameter_mm": hull.feret_diameter_mm,
        "mesh_diameter_mm": hull.mesh_diameter_mm,
        "crofton_area_mm2": crofton,
        "crofton_sphericity": math.pi * _ball_diameter(volume) ** 2 / crofton,
        "crofton_area_per_volume_per_mm": crofton / volume,
        "mesh_area_mm2": mesh_area,
        **_roundness(mesh_area, mesh_volume),
        "volume_density_box": mesh_volume / box_volume,
        "area_density_box": mesh_area / box_area,
        "volume_density_hull": mesh_volume / hull.volume_mm3,
        "area_density_hull": mesh_area / hull.area_mm2,
    }


def _ball_diameter(volume: float) -> float:
    return float((6.0 * volume / math.pi) ** (1.0 / 3.0))


def _roundness(area: float, volume: float) -> Mapping[str, float]:
    """The IBSI's five ways to compare a mesh with a ball, and area per volume."""
    ball_area = (36.0 * math.pi * volume**2) ** (1.0 / 3.0)
    return {
        "mesh_area_per_volume_per_mm": area / volume,
        "sphericity": ball_area / area,
        "compactness_1": volume / (math.sqrt(math.pi) * area**1.5),
        "compactness_2": 36.0 * math.pi * volume**2 / area**3,
        "spherical_disproportion": area / ball_area,
        "asphericity": area / ball_area - 1.0,
    }


def _box(shape: tuple[int, ...], basis: NDArray[np.float64]) -> tuple[float, float]:
    """mm3 and mm2 of the box around the mesh, which reaches half a step beyond the outermost centers."""
    a, b, c = (basis * np.array(shape)).T
    faces = [float(np.linalg.norm(np.cross(u, v))) for u, v in ((a, b), (a, c), (b, c))]
    return abs(float(np.dot(np.cross(a, b), c))), 2.0 * sum(faces)


def _axes(
    mask: NDArray[np.bool_], n_voxels: int, mesh_area: float, mesh_volume: float, basis: NDArray[np.float64]
) -> Mapping[str, Value]:
    """Axes of the IBSI from the covariance of the centers, and of the solid ellipsoid with voxels as solid boxes."""
    indices = np.stack(np.nonzero(mask)).astype(np.float64)
    indices -= indices.mean(axis=1, keepdims=True)
    products = basis @ (indices @ indices.T) @ basis.T
    spread = np.maximum(np.linalg.eigvalsh(products / max(n_voxels - 1, 1))[::-1], 0.0)
    spread[spread <= _FLAT * max(spread[0], 1e-300)] = 0.0
    solid = np.linalg.eigvalsh(products / n_voxels + basis @ basis.T / 12.0)[::-1]
    axes, solid_axes = 4.0 * np.sqrt(spread), 2.0 * np.sqrt(5.0 * solid)
    is_solid, is_long = bool(spread[2] > 0.0), n_voxels > 1
    ellipsoid = math.pi / 6.0 * float(axes.prod())
    return {
        **{
            f"{which}_axis_mm": length if is_long else None
            for which, length in zip(("major", "minor", "least"), axes.tolist(), strict=True)
        },
        "elongation": float(axes[1] / axes[0]) if is_long else None,
        "flatness": float(axes[2] / axes[0]) if is_long else None,
        **{
            f"ellipsoid_{which}_axis_mm": length
            for which, length in zip(("major", "minor", "least"), solid_axes.tolist(), strict=True)
        },
        "volume_density_ellipsoid": mesh_volume / ellipsoid if is_solid else None,
        "area_density_ellipsoid": mesh_area / float(ellipsoid_area(axes / 2.0)) if is_solid else None,
    }


def _slices(mask: NDArray[np.bool_], grid: _Grid) -> Mapping[str, Any]:
    """What is measured slice by slice; slices and ends count from the box."""
    counts = np.count_nonzero(mask, axis=(0, 1))
    a, b = grid.basis.T[:2]
    pixel_mm2 = float(np.linalg.norm(np.cross(a, b)))
    slice_distance = grid.voxel_mm3 / pixel_mm2
    diameters = measure_slices(np.moveaxis(mask, 2, 0), grid.plane)
    return {
        "n_slices": int(np.count_nonzero(counts)),
        "axial_extent_mm": mask.shape[2] * slice_distance,
        "largest_slice": int(counts.argmax()),
        "largest_slice_area_mm2": int(counts.max()) * pixel_mm2,
        "longest_diameter_mm": diameters.longest_mm,
        "perpendicular_diameter_mm": diameters.perpendicular_mm,
        "who_product_mm2": diameters.longest_mm * diameters.perpendicular_mm,
        "largest_product_mm2": diameters.largest_product_mm2,
        "diameter_slice": diameters.slice,
        "ends": np.column_stack([diameters.ends, np.full(4, float(diameters.slice))]),
    }


def _holes(mask: NDArray[np.bool_], voxel_mm3: float) -> Mapping[str, Value]:
    """Parts of the lesion, and what it encloses; `mask` has a rim of False, so that the outside is one part."""
    n_components = int(cc3d.connected_components(mask, connectivity=26, return_N=True)[1])
    outside, n_outside = cc3d.connected_components(~mask, connectivity=6, return_N=True)
    n_enclosed = int(np.count_nonzero(~mask & (outside != outside[0, 0, 0]))) if n_outside > 1 else 0
    return {
        "n_components": n_components,
        "has_hole": n_enclosed > 0,
        "hole_volume_ml": n_enclosed * voxel_mm3 / 1000.0,
    }
