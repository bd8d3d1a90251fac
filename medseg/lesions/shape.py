"""Shape of each lesion: mesh, Crofton area, hull, axes, diameters, quality, all from the mask in its own box."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from medseg.core.choice import ALL, Choice
from medseg.core.geometry import Geometry
from medseg.core.table import Value
from medseg.lesions.axes import AXIS_COLUMNS, axis_columns
from medseg.lesions.bodies import LesionVoxels
from medseg.lesions.crofton import CroftonWeights, crofton_area, crofton_weights
from medseg.lesions.diameters import OUTWARD_PIXELS, SlicePlane, measure_slices
from medseg.lesions.hull import Hull, hull_of
from medseg.lesions.mesh import MeshTables, cell_patterns, mesh_tables
from medseg.lesions.shells import padded

__all__ = ["shape_columns"]

_CACHED_BOX_VOXELS = 64  # specks of few voxels repeat one shape many times over


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


def shape_columns(voxels: LesionVoxels, choice: Choice = ALL) -> dict[str, list[Any]]:
    """Columns of size, diameters and shape, entry n - 1 for lesion n.

    Parameters
    ----------
    voxels
        Of lesions 1..n.
    choice
        Which columns are wanted; what none of them needs is not computed.

    Returns
    -------
    One list a column; the ends of the diameters under "ends": (4, 3) array indices each, fractions of a voxel included.

    References
    ----------
    Zwanenburg A et al. Image biomarker standardisation initiative, reference manual (2019), section 3.1.
    """
    if not voxels.n_lesions:
        return {}
    parts = [measure for measure, names in _PARTS.items() if choice.holds(*names)]
    columns = _measured(voxels, parts) if parts else {}
    if choice.holds(*AXIS_COLUMNS):
        columns.update(axis_columns(voxels, columns, choice))
    return columns


def _measured(voxels: LesionVoxels, parts: Sequence[_Part]) -> dict[str, list[Any]]:
    """Columns that need each lesion's mask."""
    grid = _Grid.of(voxels.geometry)
    known: dict[tuple[tuple[int, ...], bytes], dict[str, Any]] = {}
    rows = []
    for number in range(1, voxels.n_lesions + 1):
        box = voxels.box(number)
        mask = padded((voxels.labels[box] == number).transpose(grid.order), (1, 1, 1))
        key = (mask.shape, mask.tobytes()) if mask.size <= _CACHED_BOX_VOXELS else None
        row = known.get(key) if key else None
        if row is None:
            body = _Body(mask, grid)
            row = {name: value for measure in parts for name, value in measure(body).items()}
            if key:
                known[key] = row
        rows.append(row)
    return _placed({name: [row[name] for row in rows] for name in rows[0]}, voxels, grid)


def _placed(columns: dict[str, list[Any]], voxels: LesionVoxels, grid: _Grid) -> dict[str, list[Any]]:
    """Slices and ends relative to each lesion's box become indices of the scan."""
    first_slice = voxels.low[:, voxels.geometry.axial_axis]
    for name in {"largest_slice", "diameter_slice"} & set(columns):
        columns[name] = (np.array(columns[name]) + first_slice).tolist()
    if "ends" in columns:
        back = np.argsort(grid.order)
        columns["ends"] = list(np.stack(columns["ends"])[:, :, back] + voxels.low[:, None])
    return columns


class _Body:
    """One lesion wherever it lies: its mask with a rim of False, and what several columns are made from."""

    def __init__(self, mask: NDArray[np.bool_], grid: _Grid) -> None:
        self.mask, self.grid = mask, grid
        self.inner = mask[1:-1, 1:-1, 1:-1]
        self.volume_mm3 = int(np.count_nonzero(self.inner)) * grid.voxel_mm3
        self.ball_diameter_mm = float((6.0 * self.volume_mm3 / math.pi) ** (1.0 / 3.0))

    @cached_property
    def mesh(self) -> tuple[float, float]:
        """mm2 and mm3 of the mesh."""
        patterns = cell_patterns(self.mask)
        return float(patterns @ self.grid.tables.area_mm2), float(patterns @ self.grid.tables.volume_mm3)

    @cached_property
    def hull(self) -> Hull:
        """The convex hull, and the longest distances."""
        return hull_of(self.inner, self.grid.basis, OUTWARD_PIXELS)


_Part = Callable[[_Body], Mapping[str, Any]]


def _ball(body: _Body) -> Mapping[str, Value]:
    return {"equivalent_diameter_mm": body.ball_diameter_mm}


def _crofton(body: _Body) -> Mapping[str, Value]:
    area = crofton_area(body.inner, body.grid.crofton)
    return {
        "crofton_area_mm2": area,
        "crofton_sphericity": math.pi * body.ball_diameter_mm**2 / area,
        "crofton_area_per_volume_per_mm": area / body.volume_mm3,
    }


def _mesh(body: _Body) -> Mapping[str, Value]:
    """Mesh, the IBSI's five ways to compare it with a ball, and with the box around it.

    The box reaches half a step beyond the outermost centers.
    """
    area, volume = body.mesh
    ball_area = (36.0 * math.pi * volume**2) ** (1.0 / 3.0)
    a, b, c = (body.grid.basis * np.array(body.inner.shape)).T
    faces = [float(np.linalg.norm(np.cross(u, v))) for u, v in ((a, b), (a, c), (b, c))]
    return {
        "mesh_volume_ml": volume / 1000.0,
        "mesh_area_mm2": area,
        "mesh_area_per_volume_per_mm": area / volume,
        "sphericity": ball_area / area,
        "compactness_1": volume / (math.sqrt(math.pi) * area**1.5),
        "compactness_2": 36.0 * math.pi * volume**2 / area**3,
        "spherical_disproportion": area / ball_area,
        "asphericity": area / ball_area - 1.0,
        "volume_density_box": volume / abs(float(np.dot(np.cross(a, b), c))),
        "area_density_box": area / (2.0 * sum(faces)),
    }


def _feret(body: _Body) -> Mapping[str, Value]:
    return {"feret_diameter_mm": body.hull.feret_diameter_mm, "mesh_diameter_mm": body.hull.mesh_diameter_mm}


def _hull_densities(body: _Body) -> Mapping[str, Value]:
    area, volume = body.mesh
    return {"volume_density_hull": volume / body.hull.volume_mm3, "area_density_hull": area / body.hull.area_mm2}


def _slices(body: _Body) -> Mapping[str, Value]:
    """How the lesion fills the slices, which count from the box."""
    counts = np.count_nonzero(body.inner, axis=(0, 1))
    a, b = body.grid.basis.T[:2]
    pixel_mm2 = float(np.linalg.norm(np.cross(a, b)))
    return {
        "n_slices": int(np.count_nonzero(counts)),
        "axial_extent_mm": body.inner.shape[2] * (body.grid.voxel_mm3 / pixel_mm2),
        "largest_slice": int(counts.argmax()),
        "largest_slice_area_mm2": int(counts.max()) * pixel_mm2,
    }


def _diameters(body: _Body) -> Mapping[str, Any]:
    """Diameters within slices; slices and ends count from the box."""
    diameters = measure_slices(np.moveaxis(body.inner, 2, 0), body.grid.plane)
    return {
        "longest_diameter_mm": diameters.longest_mm,
        "perpendicular_diameter_mm": diameters.perpendicular_mm,
        "who_product_mm2": diameters.longest_mm * diameters.perpendicular_mm,
        "largest_product_mm2": diameters.largest_product_mm2,
        "diameter_slice": diameters.slice,
        "ends": np.column_stack([diameters.ends, np.full(4, float(diameters.slice))]),
    }


def _components(body: _Body) -> Mapping[str, Value]:
    return {"n_components": int(cc3d.connected_components(body.mask, connectivity=26, return_N=True)[1])}


def _holes(body: _Body) -> Mapping[str, Value]:
    """What the lesion encloses; around the mask is a rim of False, so that the outside is one part."""
    outside, n_outside = cc3d.connected_components(~body.mask, connectivity=6, return_N=True)
    n_enclosed = int(np.count_nonzero(~body.mask & (outside != outside[0, 0, 0]))) if n_outside > 1 else 0
    return {"has_hole": n_enclosed > 0, "hole_volume_ml": n_enclosed * body.grid.voxel_mm3 / 1000.0}


_ENDS = tuple(
    f"{of}_{end}_{axis}_lps_mm" for of in ("longest", "perpendicular") for end in ("start", "end") for axis in "xyz"
)
_PARTS: Mapping[_Part, tuple[str, ...]] = {
    _ball: ("equivalent_diameter_mm",),
    _crofton: ("crofton_area_mm2", "crofton_sphericity", "crofton_area_per_volume_per_mm"),
    _mesh: (
        *("mesh_volume_ml", "mesh_area_mm2", "mesh_area_per_volume_per_mm", "sphericity", "compactness_1"),
        *("compactness_2", "spherical_disproportion", "asphericity", "volume_density_box", "area_density_box"),
    ),
    _feret: ("feret_diameter_mm", "mesh_diameter_mm"),
    _hull_densities: ("volume_density_hull", "area_density_hull"),
    _slices: ("n_slices", "axial_extent_mm", "largest_slice", "largest_slice_area_mm2"),
    _diameters: (
        *("longest_diameter_mm", "perpendicular_diameter_mm", "who_product_mm2", "largest_product_mm2"),
        *("diameter_slice", *_ENDS),
    ),
    _components: ("n_components",),
    _holes: ("has_hole", "hole_volume_ml"),
}
"""How columns are measured together, and which ones."""
