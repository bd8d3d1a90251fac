"""From a lesion map to a table of lesions: the front door of measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.core.table import COLUMNS, LesionTable
from medseg.core.volume import Volume
from medseg.errors import GridMismatch
from medseg.lesions.diameters import lesion_diameters
from medseg.lesions.foreground import (
    Box,
    Foreground,
    find_foreground,
    lesion_boxes,
    lesion_centroids,
    lesion_voxel_counts,
)
from medseg.lesions.intensity import intensity_statistics

__all__ = ["measure_lesions"]


def measure_lesions(lesions: LesionMap, volume: Volume | None = None, case_id: str = "case") -> LesionTable:
    """Measure every lesion.

    Parameters
    ----------
    lesions
        Lesions 1..n.
    volume
        The scan, on the same grid, or None. Intensities are those of its first channel.
    case_id
        Goes into the first column.

    Returns
    -------
    One row a lesion, in the order of their numbers, with the columns of `medseg.core.table.COLUMNS`; the intensities
    are None without a scan. Values are plain Python numbers.

    Raises
    ------
    GridMismatch
        If the scan lies on another grid than the lesions.

    Examples
    --------
    >>> import numpy as np
    >>> from medseg.core.lesions import Lesion
    >>> array = np.zeros((4, 4, 4), dtype=np.uint16)
    >>> array[1:3, 1:3, 1:3] = 1
    >>> grid = Geometry((4, 4, 4), np.diag([5.0, 5.0, 5.0, 1.0]))
    >>> row = next(iter(measure_lesions(LesionMap(array, grid, (Lesion("metastasis"),)))))
    >>> row["class_name"], row["volume_ml"], row["centroid_x_lps_mm"], row["mean"]
    ('metastasis', 1.0, -7.5, None)
    """
    if volume is not None:
        _check_grid(lesions.geometry, volume.geometry, case_id)
    n = lesions.n_lesions
    foreground = find_foreground(lesions.array)
    boxes = lesion_boxes(foreground, n)
    columns = {
        "case_id": [case_id] * n,
        "lesion_id": list(range(1, n + 1)),
        "class_name": [lesion.class_name for lesion in lesions.lesions],
        "volume_ml": (lesion_voxel_counts(foreground, n) * lesions.geometry.voxel_volume_mm3 / 1000.0).tolist(),
        **_diameter_columns(lesions, boxes),
        **_centroid_columns(foreground, n, lesions.geometry),
        **_box_columns(boxes, lesions.geometry),
        **_intensity_columns(foreground, n, volume),
    }
    rows = zip(*(columns[column.name] for column in COLUMNS), strict=True)
    return LesionTable(tuple(dict(zip((column.name for column in COLUMNS), row, strict=True)) for row in rows))


def _check_grid(lesion_grid: Geometry, scan_grid: Geometry, case_id: str) -> None:
    if lesion_grid.matches(scan_grid):
        return
    apart = lesion_grid.largest_displacement_mm(scan_grid)
    raise GridMismatch(
        f"{case_id}: the lesions lie on {lesion_grid!r} and the scan on {scan_grid!r}, up to {apart:.3g} mm apart; "
        "give the scan that the lesions were found in, or resample the lesion map to its grid"
    )


def _diameter_columns(lesions: LesionMap, boxes: list[Box]) -> Mapping[str, list[Any]]:
    diameters = lesion_diameters(lesions.array, boxes, lesions.geometry).tolist()
    return {
        "longest_diameter_mm": [longest for longest, _ in diameters],
        "perpendicular_diameter_mm": [perpendicular for _, perpendicular in diameters],
    }


def _centroid_columns(foreground: Foreground, n_lesions: int, geometry: Geometry) -> Mapping[str, list[Any]]:
    lps = lesion_centroids(foreground, n_lesions, geometry) * [-1.0, -1.0, 1.0]
    return {f"centroid_{axis}_lps_mm": lps[:, number].tolist() for number, axis in enumerate("xyz")}


def _box_columns(boxes: list[Box], geometry: Geometry) -> Mapping[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for number, axis in enumerate("ijk"):
        columns[f"bbox_{axis}_min"] = [box[number].start for box in boxes]
        columns[f"bbox_{axis}_max"] = [box[number].stop for box in boxes]
    columns["touches_border"] = [
        any(extent.start == 0 or extent.stop == size for extent, size in zip(box, geometry.shape, strict=True))
        for box in boxes
    ]
    return columns


def _intensity_columns(foreground: Foreground, n_lesions: int, volume: Volume | None) -> Mapping[str, list[Any]]:
    if volume is None:
        return {name: [None] * n_lesions for name in ("mean", "std", "min", "max")}
    statistics = intensity_statistics(foreground, n_lesions, volume.array[0])
    return {
        "mean": statistics.mean.tolist(),
        "std": statistics.std.tolist(),
        "min": statistics.minimum.tolist(),
        "max": statistics.maximum.tolist(),
    }
