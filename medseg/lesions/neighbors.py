"""Which lesion lies nearest, how far, and which touch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from medseg.core.choice import ALL, Choice
from medseg.core.table import Value
from medseg.lesions.bodies import LesionVoxels
from medseg.lesions.shells import padded

__all__ = ["LesionSurfaces", "neighbor_columns"]

_SAME_MM = 1e-6
_ALL_PAIRS = 100_000  # below, all distances at once are quicker than a tree
_FIRST_GUESSES = 4
_NEAREST = ("nearest_lesion_id", "nearest_lesion_distance_mm")


class LesionSurfaces:
    """Surface voxels of lesions in millimeters within the grid's own axes, made when they are asked for."""

    def __init__(self, voxels: LesionVoxels) -> None:
        self.voxels = voxels
        self.basis = np.linalg.qr(voxels.geometry.affine[:3, :3]).R
        self._known: dict[int, NDArray[np.float64]] = {}
        corners = np.stack([voxels.low, voxels.high - 1])
        picks = np.array(np.unravel_index(np.arange(8), (2, 2, 2)))
        all_corners = np.stack([corners[pick, :, np.arange(3)].T for pick in picks.T]) @ self.basis.T
        self.low, self.high = all_corners.min(axis=0), all_corners.max(axis=0)

    def of(self, number: int) -> NDArray[np.float64]:
        """(P, 3) centers of the voxels of a lesion that share a face with a voxel outside it."""
        if number not in self._known:
            box = self.voxels.box(number)
            wide = padded(self.voxels.labels[box] == number, (1, 1, 1))
            core = wide[1:-1, 1:-1, 1:-1].copy()
            inside = core.copy()
            for axis in range(3):
                for shift in (0, 2):
                    part = [slice(1, -1)] * 3
                    part[axis] = slice(shift, wide.shape[axis] - 2 + shift)
                    inside &= wide[tuple(part)]
            places = np.argwhere(core & ~inside) + self.voxels.low[number - 1]
            self._known[number] = places @ self.basis.T
        return self._known[number]

    def distance(self, first: int, second: int) -> float:
        """Shortest distance between voxel centers of two lesions."""
        here, there = self.of(first), self.of(second)
        start = here[np.square(here - there.mean(axis=0)).sum(axis=1).argmin()]
        opposite = there[np.square(there - start).sum(axis=1).argmin()]
        bound = float(np.sqrt(np.square(here - opposite).sum(axis=1).min())) + _SAME_MM
        here = here[self._to_box(here, second) <= bound]
        there = there[self._to_box(there, first) <= bound]
        if len(here) * len(there) <= _ALL_PAIRS:
            return float(cdist(here, there).min())
        return float(cKDTree(here).query(there)[0].min())

    def _to_box(self, points: NDArray[np.float64], number: int) -> NDArray[np.float64]:
        gaps = np.maximum(np.maximum(self.low[number - 1] - points, points - self.high[number - 1]), 0.0)
        distances: NDArray[np.float64] = np.sqrt(np.square(gaps).sum(axis=-1))
        return distances

    def gaps(self, number: int, others: NDArray[np.intp]) -> NDArray[np.float64]:
        """What the distances to other lesions (from 0) are at least: those of their boxes."""
        low, high = self.low[number - 1], self.high[number - 1]
        apart = np.maximum(np.maximum(self.low[others] - high, low - self.high[others]), 0.0)
        distances: NDArray[np.float64] = np.sqrt(np.square(apart).sum(axis=-1))
        return distances


def neighbor_columns(
    voxels: LesionVoxels, surfaces: LesionSurfaces, choice: Choice = ALL
) -> dict[str, Sequence[Value]]:
    """Columns of neighbors, entry n - 1 for lesion n; what none of the chosen columns needs is not computed."""
    n = voxels.n_lesions
    columns: dict[str, Sequence[Value]] = {}
    if choice.holds("n_contacts", "contact_area_mm2"):
        n_contacts, area = _contacts(voxels)
        columns |= {"n_contacts": n_contacts.tolist(), "contact_area_mm2": area.tolist()}
    if n < 2:
        return {**columns, **{name: [None] * n for name in (*_NEAREST, "nearest_centroid_distance_mm")}}
    if choice.holds(*_NEAREST):
        columns |= dict(zip(_NEAREST, zip(*_nearest(surfaces, n), strict=True), strict=True))
    if choice.holds("nearest_centroid_distance_mm"):
        centroids = voxels.geometry.to_world(voxels.mean_index)
        columns["nearest_centroid_distance_mm"] = cKDTree(centroids).query(centroids, k=2)[0][:, 1].tolist()
    return columns


def _contacts(voxels: LesionVoxels) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Number of lesions that each one shares a voxel face with, and the area of those faces."""
    n = voxels.n_lesions
    own = np.repeat(np.arange(1, n + 1, dtype=voxels.labels.dtype), voxels.counts)
    area = np.zeros(n + 1)
    pairs: list[NDArray[np.int64]] = []
    columns = voxels.geometry.affine[:3, :3].T
    for axis in range(3):
        face = float(np.linalg.norm(np.cross(*np.delete(columns, axis, axis=0))))
        within = np.flatnonzero(voxels.indices[axis] < voxels.geometry.shape[axis] - 1)
        other = voxels.labels_at(axis, within)
        here = own[within]
        touching = np.flatnonzero((other != 0) & (other != here))
        here, other = here[touching].astype(np.int64), other[touching].astype(np.int64)
        area += face * (np.bincount(here, minlength=n + 1) + np.bincount(other, minlength=n + 1))
        pairs.append(np.unique(np.minimum(here, other) * (n + 1) + np.maximum(here, other)))
    both = np.unique(np.concatenate(pairs))
    n_contacts = np.bincount(np.concatenate([both // (n + 1), both % (n + 1)]), minlength=n + 1)
    return n_contacts[1:], area[1:]


def _nearest(surfaces: LesionSurfaces, n: int) -> list[tuple[int, float]]:
    """Number and distance of the lesion nearest to each, the lowest number of equals.

    A lesion's box is no further than the lesion. Boxes are sought in trees, one for each size of box, so that one large
    lesion among thousands of small ones does not make every search run over all of them.
    """
    centers = (surfaces.low + surfaces.high) / 2.0
    radii = np.linalg.norm(surfaces.high - surfaces.low, axis=1) / 2.0
    guesses = cKDTree(centers).query(centers, k=min(n, _FIRST_GUESSES))[1].reshape(n, -1)
    octave = np.ceil(np.log2(np.maximum(radii, 1.0))).astype(int)
    classes = [np.flatnonzero(octave == size) for size in np.unique(octave)]
    trees = [(members, cKDTree(centers[members]), float(radii[members].max())) for members in classes]
    known: dict[tuple[int, int], float] = {}
    nearest = []
    for number in range(1, n + 1):
        search = _Search(surfaces, number, known)
        search.visit(guesses[number - 1])
        for members, tree, largest in trees:
            reach = search.distance + radii[number - 1] + largest + _SAME_MM
            search.visit(members[tree.query_ball_point(centers[number - 1], reach)])
        nearest.append((search.nearest, search.distance))
    return nearest


class _Search:
    """The nearest lesion found so far."""

    def __init__(self, surfaces: LesionSurfaces, number: int, known: dict[tuple[int, int], float]) -> None:
        self.surfaces, self.number, self.known = surfaces, number, known
        self.distance, self.nearest = np.inf, 0

    def visit(self, others: NDArray[Any]) -> None:
        """Look at other lesions (from 0), those whose boxes are nearest first."""
        others = others[others != self.number - 1]
        gaps = self.surfaces.gaps(self.number, others)
        order = np.argsort(gaps, kind="stable")
        for other, gap in zip((others[order] + 1).tolist(), gaps[order].tolist(), strict=True):
            if gap > self.distance + _SAME_MM:
                break
            pair = (min(self.number, other), max(self.number, other))
            if pair not in self.known:
                self.known[pair] = self.surfaces.distance(*pair)
            distance = self.known[pair]
            is_tie = abs(distance - self.distance) <= _SAME_MM
            if distance < self.distance - _SAME_MM or (is_tie and other < self.nearest):
                self.distance, self.nearest = min(distance, self.distance), other
