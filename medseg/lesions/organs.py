"""The organ that each lesion lies in, how deep, and how much of all lesions lies in each organ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from medseg.core.choice import ALL, Choice
from medseg.core.semantic import SemanticMap
from medseg.core.table import Value
from medseg.lesions.bodies import LesionVoxels
from medseg.lesions.foreground import Box
from medseg.lesions.neighbors import LesionSurfaces

__all__ = ["Hosts", "find_hosts", "organ_columns", "organ_totals"]

_MARGINS_MM = (6.0, 18.0, 50.0)


@dataclass(frozen=True, eq=False)
class Hosts:
    """Which organ each lesion belongs to.

    Parameters
    ----------
    numbers
        n organ numbers, 0 for none.
    overlaps
        n shares of the lesion in it.
    distances_mm
        n distances to it, 0 where they overlap, None without an organ.
    voxel_counts
        (n, M + 1) voxels of each lesion in each organ number, 0 for none.
    """

    numbers: list[int]
    overlaps: list[float]
    distances_mm: list[float | None]
    voxel_counts: NDArray[np.int64]


def find_hosts(voxels: LesionVoxels, organs: SemanticMap, surfaces: LesionSurfaces) -> Hosts:
    """The organ with most of each lesion's voxels; for a lesion in none, the nearest within 50 mm."""
    n, highest = voxels.n_lesions, organs.scheme.highest
    own = np.repeat(np.arange(n, dtype=np.int64), voxels.counts)
    pairs = own * (highest + 1) + voxels.read(organs.array)
    counts = np.bincount(pairs, minlength=n * (highest + 1)).reshape(n, highest + 1)
    numbers = (counts[:, 1:].argmax(axis=1) + 1).tolist()
    overlaps = (counts[:, 1:].max(axis=1) / voxels.counts).tolist()
    distances: list[float | None] = [0.0] * n
    for index in np.flatnonzero(counts[:, 1:].sum(axis=1) == 0).tolist():
        numbers[index], distances[index] = _nearest_organ(voxels, index + 1, organs, surfaces)
    return Hosts(numbers, overlaps, distances, counts)


def organ_columns(
    voxels: LesionVoxels, organs: SemanticMap, hosts: Hosts, surfaces: LesionSurfaces, choice: Choice = ALL
) -> dict[str, list[Value]]:
    """Columns of the host organ, entry n - 1 for lesion n; the distance to its boundary if it is chosen."""
    has_host = [number > 0 for number in hosts.numbers]
    columns: dict[str, list[Value]] = {
        "organ": [organs.scheme.classes[number] if number else None for number in hosts.numbers],
        "organ_overlap": [share if has else None for share, has in zip(hosts.overlaps, has_host, strict=True)],
        "organ_distance_mm": list(hosts.distances_mm),
    }
    if choice.holds("organ_boundary_distance_mm"):
        columns["organ_boundary_distance_mm"] = _boundary_distances(voxels, organs, hosts, surfaces)
    return columns


def _boundary_distances(
    voxels: LesionVoxels, organs: SemanticMap, hosts: Hosts, surfaces: LesionSurfaces
) -> list[Value]:
    boundary: list[Value] = []
    for index, (number, distance) in enumerate(zip(hosts.numbers, hosts.distances_mm, strict=True)):
        if not number or distance is None:
            boundary.append(None)
        elif distance > 0:
            boundary.append(-distance)
        else:
            boundary.append(_boundary_distance(voxels, index + 1, organs, number, surfaces))
    return boundary


def _nearest_organ(
    voxels: LesionVoxels, number: int, organs: SemanticMap, surfaces: LesionSurfaces
) -> tuple[int, float | None]:
    def organ_voxels(box: Box) -> NDArray[np.bool_]:
        wanted: NDArray[np.bool_] = organs.array[box] != 0
        return wanted

    found = _nearest_of(voxels, number, surfaces, organ_voxels)
    return (0, None) if found is None else (int(organs.array[found[1]]), found[0])


def _boundary_distance(
    voxels: LesionVoxels, number: int, organs: SemanticMap, host: int, surfaces: LesionSurfaces
) -> float | None:
    def outside(box: Box) -> NDArray[np.bool_]:
        wanted: NDArray[np.bool_] = (organs.array[box] != host) & (voxels.labels[box] == 0)
        return wanted

    found = _nearest_of(voxels, number, surfaces, outside)
    return None if found is None else found[0]


def _nearest_of(
    voxels: LesionVoxels,
    number: int,
    surfaces: LesionSurfaces,
    wanted: Callable[[Box], NDArray[np.bool_]],
) -> tuple[float, tuple[int, ...]] | None:
    """Shortest distance from a lesion to a voxel that is wanted, and that voxel, in growing boxes up to 50 mm.

    Of equally near voxels the first by world x, y, z.
    """
    inverse = np.linalg.norm(np.linalg.inv(surfaces.basis), axis=1)
    for margin_mm in _MARGINS_MM:
        most = np.ceil(margin_mm * inverse).astype(int).tolist()
        box = voxels.box(number, (most[0], most[1], most[2]))
        places = np.argwhere(_edge(wanted(box))) + [extent.start for extent in box]
        if not len(places):
            continue
        distances = cKDTree(surfaces.of(number)).query(places @ surfaces.basis.T, distance_upper_bound=margin_mm)[0]
        shortest = float(distances.min())
        if np.isfinite(shortest):
            near = places[distances <= shortest + 1e-6]
            order = np.lexsort(np.round(voxels.geometry.to_world(near), 6).T[::-1])
            return shortest, tuple(near[order[0]].tolist())
    return None


def _edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of a mask with a neighbor by face outside it: the nearest one to anything outside is among them."""
    inner = mask.copy()
    for axis in range(3):
        lines, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)
        kept[1:] &= lines[:-1]
        kept[:-1] &= lines[1:]
    edge: NDArray[np.bool_] = mask & ~inner
    return edge


def organ_totals(
    voxels: LesionVoxels, organs: SemanticMap, hosts: Hosts, suv: NDArray[Any] | None
) -> dict[str, dict[str, Value]]:
    """Burden of each organ that holds lesion: lesions hosted, volume and TLG of the lesion voxels in it."""
    n_hosted = np.bincount(np.array(hosts.numbers, dtype=np.int64), minlength=hosts.voxel_counts.shape[1])
    per_organ = hosts.voxel_counts.sum(axis=0)
    tlg = (
        None
        if suv is None
        else np.bincount(voxels.read(organs.array), weights=suv, minlength=per_organ.size)
        * voxels.geometry.voxel_volume_ml
    )
    totals: dict[str, dict[str, Value]] = {}
    for number, name in organs.scheme.classes.items():
        if per_organ[number] or n_hosted[number]:
            totals[name] = {
                "n_lesions": int(n_hosted[number]),
                "volume_ml": float(per_organ[number] * voxels.geometry.voxel_volume_ml),
                "tlg_suv_ml": None if tlg is None else float(tlg[number]),
            }
    return totals
