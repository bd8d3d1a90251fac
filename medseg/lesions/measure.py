"""From a lesion map to a table of lesions: the front door of measurement."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.columns_context import LESION_FIELDS
from medseg.core.columns_scan import INTENSITY, UPTAKE
from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.core.semantic import SemanticMap
from medseg.core.table import COLUMNS, Column, LesionTable, Value
from medseg.core.volume import Volume
from medseg.errors import GridMismatch, UsageError
from medseg.lesions.bodies import LesionVoxels, list_voxels
from medseg.lesions.confidence import confidence_columns
from medseg.lesions.intensity import ct_windows, intensity_columns
from medseg.lesions.location import LPS, border_columns, location_columns
from medseg.lesions.neighbors import LesionSurfaces, neighbor_columns
from medseg.lesions.organs import Hosts, find_hosts, organ_columns, organ_totals
from medseg.lesions.shape import shape_columns
from medseg.lesions.surroundings import Shell, lesion_shells, shell_columns
from medseg.lesions.totals import scan_totals
from medseg.lesions.uptake import uptake_columns

__all__ = ["measure_lesions"]

_FEW_VOXELS = 10
_RECIST_MM, _RECIST_THICK_SLICE_MM = 10.0, 5.0


def measure_lesions(
    lesions: LesionMap,
    volume: Volume | None = None,
    case_id: str = "case",
    *,
    organs: SemanticMap | None = None,
    probabilities: NDArray[np.float32] | None = None,
) -> LesionTable:
    """Measure every lesion.

    Parameters
    ----------
    lesions
        Lesions 1..n.
    volume
        The scan, on the same grid, or None. The columns of intensity are those of its first channel; further channels
        have the same columns with the channel's name in front. The columns of uptake are those of the first channel in
        SUV.
    case_id
        Goes into the first column.
    organs
        Map of organs on the same grid, or None.
    probabilities
        (I, J, K) float32 in 0..1, probability of anything but background, or None.

    Returns
    -------
    One row a lesion, in the order of their numbers, with the columns of `medseg.core.table.COLUMNS` and those of
    further channels; what cannot be had without scan, organs or probabilities is None. Values are plain Python numbers.
    Figures of the whole scan are in `totals`.

    Raises
    ------
    GridMismatch
        If the scan, the organs or the probabilities lie on another grid than the lesions.
    UsageError
        If the case's name is no text.

    Examples
    --------
    >>> from medseg.core.lesions import Lesion
    >>> array = np.zeros((4, 4, 4), dtype=np.uint16)
    >>> array[1:3, 1:3, 1:3] = 1
    >>> grid = Geometry((4, 4, 4), np.diag([5.0, 5.0, 5.0, 1.0]))
    >>> table = measure_lesions(LesionMap(array, grid, (Lesion("metastasis"),)))
    >>> row = table.rows[0]
    >>> row["class_name"], row["volume_ml"], row["centroid_x_lps_mm"], row["mean"]
    ('metastasis', 1.0, -7.5, None)
    >>> table.totals["volume_ml"], table.totals["mtv_ml"]
    (1.0, None)
    """
    if not isinstance(case_id, str):
        raise UsageError(f"case_id is the name of the case; got {case_id!r}. Give organs as organs=...")
    _check_grids(lesions, volume, organs, probabilities, case_id)
    voxels = list_voxels(lesions)
    surfaces = LesionSurfaces(voxels)
    values: dict[str, Sequence[Any]] = {
        "case_id": [case_id] * lesions.n_lesions,
        "lesion_id": list(range(1, lesions.n_lesions + 1)),
        **{column.name: [getattr(lesion, column.name) for lesion in lesions.lesions] for column in LESION_FIELDS},
        "n_voxels": voxels.counts.tolist(),
        "volume_ml": (voxels.counts * lesions.geometry.voxel_volume_mm3 / 1000.0).tolist(),
        **_with_ends(shape_columns(voxels), lesions.geometry),
        **location_columns(voxels),
        **border_columns(voxels),
        **neighbor_columns(voxels, surfaces),
    }
    values.update(_flags(values, lesions.geometry))
    hosts = find_hosts(voxels, organs, surfaces) if organs is not None else None
    if organs is not None and hosts is not None:
        values.update(organ_columns(voxels, organs, hosts, surfaces))
    if probabilities is not None:
        values.update(confidence_columns(voxels, probabilities))
    scan = _ScanColumns(voxels, values, organs, hosts)
    columns = scan.measure(volume) if volume is not None else COLUMNS
    for column in columns:
        values.setdefault(column.name, [None] * lesions.n_lesions)
    totals: dict[str, Any] = dict(scan_totals(values, lesions.n_lesions, scan.suv is not None))
    if organs is not None and hosts is not None:
        totals["organs"] = organ_totals(voxels, organs, hosts, scan.suv)
    return LesionTable.of_columns(values, columns, totals)


def _check_grids(
    lesions: LesionMap,
    volume: Volume | None,
    organs: SemanticMap | None,
    probabilities: NDArray[np.float32] | None,
    case_id: str,
) -> None:
    others = {"scan": volume, "organ map": organs}
    for name, other in others.items():
        if other is not None and not lesions.geometry.matches(other.geometry):
            apart = lesions.geometry.largest_displacement_mm(other.geometry)
            raise GridMismatch(
                f"{case_id}: the lesions lie on {lesions.geometry!r} and the {name} on {other.geometry!r}, up to "
                f"{apart:.3g} mm apart; give the {name} on the grid of the lesions, or resample one of them"
            )
    if probabilities is not None and probabilities.shape != lesions.geometry.shape:
        raise GridMismatch(
            f"{case_id}: the probabilities have shape {probabilities.shape}, the lesions {lesions.geometry.shape}"
        )


def _with_ends(columns: dict[str, list[Any]], geometry: Geometry) -> dict[str, list[Any]]:
    """The ends of the diameters as columns in LPS."""
    ends = columns.pop("ends", [])
    world = geometry.to_world(np.array(ends).reshape(-1, 4, 3)) * LPS
    names = [(of, end) for of in ("longest", "perpendicular") for end in ("start", "end")]
    for place, (of, end) in enumerate(names):
        for axis, letter in enumerate("xyz"):
            columns[f"{of}_{end}_{letter}_lps_mm"] = world[:, place, axis].tolist()
    return columns


def _flags(values: dict[str, Sequence[Any]], geometry: Geometry) -> dict[str, list[Value]]:
    """Quality flags that follow from other columns."""
    if not values["lesion_id"]:
        return {}
    columns = np.delete(geometry.affine[:3, :3], geometry.axial_axis, axis=1)
    slice_distance = geometry.voxel_volume_mm3 / float(np.linalg.norm(np.cross(*columns.T)))
    least = 2.0 * slice_distance if slice_distance > _RECIST_THICK_SLICE_MM else _RECIST_MM
    return {
        "is_one_slice": [count == 1 for count in values["n_slices"]],
        "is_thinner_than_slice": [axis < slice_distance for axis in values["ellipsoid_least_axis_mm"]],
        "has_few_voxels": [count < _FEW_VOXELS for count in values["n_voxels"]],
        "is_below_recist": [diameter < least for diameter in values["longest_diameter_mm"]],
    }


class _ScanColumns:
    """Columns of the scan's channels, put into `values`."""

    def __init__(
        self,
        voxels: LesionVoxels,
        values: dict[str, Sequence[Any]],
        organs: SemanticMap | None,
        hosts: Hosts | None,
    ) -> None:
        self.voxels, self.values = voxels, values
        self.organs = None if organs is None else organs.array
        self.hosts = [0] * voxels.n_lesions if hosts is None else hosts.numbers
        self.suv: NDArray[Any] | None = None

    def measure(self, volume: Volume) -> tuple[Column, ...]:
        """Measure every channel; all columns of the table in order."""
        shells = lesion_shells(self.voxels)
        names = _channel_names(volume.channels)
        further: list[Column] = []
        for channel, (name, unit) in enumerate(zip(names, volume.units, strict=True)):
            array = volume.array[channel]
            own = self.voxels.read(array)
            spelled = "SUV" if unit == "suv" else "scan"
            found = self._intensity(array, own, shells, unit == "suv")
            if volume.channels[channel].lower() == "ct" and unit != "suv":
                found["ct_window"] = ct_windows(found.get("median", []))
            further += self._put(found, INTENSITY, name, spelled, channel > 0)
            if unit == "suv":
                is_further = self.suv is not None
                self.suv = own if self.suv is None else self.suv
                further += self._put(uptake_columns(self.voxels, array, own), UPTAKE, name, spelled, is_further)
        first_unit = "SUV" if volume.units[0] == "suv" else "scan"
        return (*(column.in_unit(first_unit) if column in INTENSITY else column for column in COLUMNS), *further)

    def _intensity(
        self, array: NDArray[Any], own: NDArray[Any], shells: list[Shell], is_suv: bool
    ) -> dict[str, list[Value]]:
        columns = intensity_columns(self.voxels, own, self.values.get("mesh_volume_ml", []), is_suv)
        return {**columns, **shell_columns(shells, array, columns.get("mean", []), self.organs, self.hosts)}

    def _put(
        self, found: dict[str, list[Value]], family: tuple[Column, ...], name: str, unit: str, is_further: bool
    ) -> list[Column]:
        """Keep what was found; further channels have their name in front, and columns of their own."""
        if not is_further:
            self.values.update(found)
            return []
        columns = [column.of_channel(name, unit) for column in family]
        for column, plain in zip(columns, family, strict=True):
            self.values[column.name] = found.get(plain.name, [None] * self.voxels.n_lesions)
        return columns


def _channel_names(channels: Sequence[str]) -> list[str]:
    """Channel names as they stand in front of columns: small letters, digits and underscores, each one once."""
    names: list[str] = []
    for number, channel in enumerate(channels):
        name = re.sub(r"[^a-z0-9]+", "_", channel.lower()).strip("_") or f"channel_{number}"
        names.append(name if name not in names else f"{name}_{number}")
    return names
