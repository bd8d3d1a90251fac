"""From a lesion map to a table of lesions: the front door of measurement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.core.choice import Choice, choose_columns
from medseg.core.columns_context import LESION_FIELDS, ORGAN
from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.core.semantic import SemanticMap
from medseg.core.table import LesionTable, Value
from medseg.core.volume import Volume
from medseg.errors import GridMismatch, UsageError
from medseg.lesions.bodies import LesionVoxels, list_voxels
from medseg.lesions.channels import Channel, channel_columns, measure_channels, plan_channels
from medseg.lesions.confidence import CONFIDENCE_COLUMNS, confidence_columns
from medseg.lesions.location import LPS, border_columns, location_columns
from medseg.lesions.neighbors import LesionSurfaces, neighbor_columns
from medseg.lesions.organs import Hosts, find_hosts, organ_columns, organ_totals
from medseg.lesions.shape import shape_columns
from medseg.lesions.totals import scan_totals

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
    columns: Collection[str] | None = None,
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
    columns
        Names of columns to measure, or patterns such as "suv_*"; None for all. What no chosen column needs is not
        computed. The values are the same as among all columns.

    Returns
    -------
    One row a lesion, in the order of their numbers, with the columns of `medseg.core.table.COLUMNS` and those of
    further channels, or case_id, lesion_id and the chosen ones; what cannot be had without scan, organs or
    probabilities is None. Values are plain Python numbers. Figures of the whole scan are in `totals`, those that the
    chosen columns allow; others are None.

    Raises
    ------
    GridMismatch
        If the scan, the organs or the probabilities lie on another grid than the lesions.
    UsageError
        If the case's name is no text, or a chosen name or pattern fits no column.

    Examples
    --------
    >>> from medseg.core.lesions import Lesion
    >>> array = np.zeros((4, 4, 4), dtype=np.uint16)
    >>> array[1:3, 1:3, 1:3] = 1
    >>> grid = Geometry((4, 4, 4), np.diag([5.0, 5.0, 5.0, 1.0]))
    >>> lesion_map = LesionMap(array, grid, (Lesion("metastasis"),))
    >>> table = measure_lesions(lesion_map)
    >>> row = table.rows[0]
    >>> row["class_name"], row["volume_ml"], row["centroid_x_lps_mm"], row["mean"]
    ('metastasis', 1.0, -7.5, None)
    >>> table.totals["volume_ml"], table.totals["mtv_ml"]
    (1.0, None)
    >>> measure_lesions(lesion_map, columns=["volume_ml", "bbox_k_*"]).rows[0]
    {'case_id': 'case', 'lesion_id': 1, 'volume_ml': 1.0, 'bbox_k_min': 1, 'bbox_k_max': 3}
    """
    if not isinstance(case_id, str):
        raise UsageError(f"case_id is the name of the case; got {case_id!r}. Give organs as organs=...")
    _check_grids(lesions, volume, organs, probabilities, case_id)
    channels = plan_channels(volume)
    chosen = choose_columns(columns, channel_columns(channels))
    names = frozenset(column.name for column in chosen)
    choice = Choice(names.union(*(channel.plain_names(names) for channel in channels)))
    voxels = list_voxels(lesions)
    surfaces = LesionSurfaces(voxels)
    values: dict[str, Sequence[Any]] = {
        "case_id": [case_id] * lesions.n_lesions,
        **_own_columns(lesions, voxels, choice),
        **neighbor_columns(voxels, surfaces, choice),
    }
    hosts = _hosts(voxels, organs, surfaces, choice)
    if hosts is not None:
        values.update(organ_columns(voxels, hosts[0], hosts[1], surfaces, choice))
    if probabilities is not None and choice.holds(*CONFIDENCE_COLUMNS):
        values.update(confidence_columns(voxels, probabilities))
    values.update(measure_channels(voxels, volume, names, values.get("mesh_volume_ml", []), hosts))
    for column in chosen:
        values.setdefault(column.name, [None] * lesions.n_lesions)
    chosen_values = {name: values[name] for name in names}
    totals: dict[str, Any] = dict(scan_totals(chosen_values, lesions.n_lesions, any(c.is_suv for c in channels)))
    if hosts is not None and "organ" in names:
        totals["organs"] = organ_totals(voxels, *hosts, _total_suv(voxels, volume, channels, names))
    return LesionTable.of_columns(values, chosen, totals)


def _own_columns(lesions: LesionMap, voxels: LesionVoxels, choice: Choice) -> Mapping[str, Sequence[Any]]:
    """What follows from each lesion alone."""
    values: dict[str, Sequence[Any]] = {
        "lesion_id": list(range(1, lesions.n_lesions + 1)),
        **{column.name: [getattr(lesion, column.name) for lesion in lesions.lesions] for column in LESION_FIELDS},
        "n_voxels": voxels.counts.tolist(),
        "volume_ml": (voxels.counts * lesions.geometry.voxel_volume_mm3 / 1000.0).tolist(),
        **_with_ends(shape_columns(voxels, choice), lesions.geometry),
        **location_columns(voxels, choice),
        **border_columns(voxels, choice),
    }
    return {**values, **_flags(values, lesions.geometry)}


def _hosts(
    voxels: LesionVoxels, organs: SemanticMap | None, surfaces: LesionSurfaces, choice: Choice
) -> tuple[SemanticMap, Hosts] | None:
    """The organs, and the host of each lesion, if a chosen column needs them."""
    if organs is None or not choice.holds("organ_margin_3mm_mean", *(column.name for column in ORGAN)):
        return None
    return organs, find_hosts(voxels, organs, surfaces)


def _total_suv(
    voxels: LesionVoxels, volume: Volume | None, channels: Sequence[Channel], names: Collection[str]
) -> NDArray[Any] | None:
    """SUV of the lesions' voxels, for the glycolysis in each organ, if that of the lesions is chosen."""
    suv = [channel.index for channel in channels if channel.is_suv]
    return voxels.read(volume.array[suv[0]]) if volume is not None and suv and "tlg_suv_ml" in names else None


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
    """The ends of the diameters, if they were measured, as columns in LPS."""
    ends = columns.pop("ends", [])
    if not ends:
        return columns
    world = geometry.to_world(np.array(ends)) * LPS
    names = [(of, end) for of in ("longest", "perpendicular") for end in ("start", "end")]
    for place, (of, end) in enumerate(names):
        for axis, letter in enumerate("xyz"):
            columns[f"{of}_{end}_{letter}_lps_mm"] = world[:, place, axis].tolist()
    return columns


def _flags(values: Mapping[str, Sequence[Any]], geometry: Geometry) -> dict[str, list[Value]]:
    """Quality flags that follow from other columns, those that were measured."""
    columns = np.delete(geometry.affine[:3, :3], geometry.axial_axis, axis=1)
    slice_distance = geometry.voxel_volume_mm3 / float(np.linalg.norm(np.cross(*columns.T)))
    least = 2.0 * slice_distance if slice_distance > _RECIST_THICK_SLICE_MM else _RECIST_MM
    flags: dict[str, tuple[str, Callable[[float], bool]]] = {
        "is_one_slice": ("n_slices", lambda count: count == 1),
        "is_thinner_than_slice": ("ellipsoid_least_axis_mm", lambda axis: axis < slice_distance),
        "has_few_voxels": ("n_voxels", lambda count: count < _FEW_VOXELS),
        "is_below_recist": ("longest_diameter_mm", lambda diameter: diameter < least),
    }
    return {
        flag: [is_true(value) for value in values[name]] for flag, (name, is_true) in flags.items() if name in values
    }
