"""Offsets: touching lesions told apart by what a network says of their centers.

Each cell of a component, a voxel or a part of a thick one, votes for a place: its own position plus its offset. Peaks
of the heatmap are the centers; a voxel belongs to the peak that its votes and itself are nearest to, in radii of the
lesion. Nothing leaves its component: where there is no peak, or one, the component stays whole, so no voxel is ever
lost. All lengths are millimeters.

References
----------
Cheng et al., Panoptic-DeepLab, CVPR 2020; Wynen et al., ConfLUNet, arXiv 2505.22537 (2025), for lesions; Soille,
Morphological Image Analysis, 2003 (h-maxima); Aurenhammer, Voronoi diagrams, ACM Computing Surveys 1991 (distances
divided by a weight).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.core.plan import SeparationPlan
from medseg.lesions.cells import Cells, cells_a_voxel
from medseg.lesions.component_masks import Body, bodies_of, with_pieces
from medseg.lesions.evidence import EvidenceSampler
from medseg.lesions.fragments import in_one_part
from medseg.lesions.orientation import CanonicalView
from medseg.lesions.pieces import Pieces
from medseg.lesions.runs import Runs

__all__ = ["split_by_offsets"]

_CUBE = np.ones((3, 3, 3), dtype=bool)
_LEAST_HEAT = 1e-6
_MOST_CELLS = 500_000  # of a component: half a liter at 1 mm; lesions that are a few slices deep come nowhere near it
_ROUNDING = 1e-9

Points = NDArray[np.float64]


def split_by_offsets(
    components: Runs,
    n_components: int,
    geometry: Geometry,
    evidence: InstanceEvidence,
    plan: SeparationPlan,
) -> Pieces:
    """Split each component into the lesions whose centers the network sees in it.

    1. Voxels are cut into cells where the network's grid is finer (`Cells`); a component of more than half a million
       cells stays uncut, as cells are for lesions of a few slices.
    2. Peaks: cells whose heat is at least `plan.peak_heat` and the highest among their 26 neighbors; from which every
       way to a hotter peak falls by at least the share `plan.peak_prominence` of their heat; of two within
       `plan.peak_distance_mm` the higher stays, of equal ones the one that comes first in R, A, S order.
    3. Each cell goes to the peak nearest to its vote.
    4. A peak is no lesion if its cells are less than `plan.least_votes` voxels, or if their mean vote lies farther from
       it than `plan.vote_fraction` times its radius (that of a ball as large). Peaks whose cells vote for nearly one
       place (their mean votes lie nearer than `plan.merge_fraction` times the smaller one's radius) are one. One peak
       goes; back to 3.
    5. Each voxel goes to the peak for which, in the mean over its cells, the product of two distances is the least:
       from the vote, and from the cell itself, both in radii of the lesion that the votes alone have made. A vote that
       is right decides alone; one that is wrong by a few millimeters is so for a small lesion rather than for a large
       one.
    6. A lesion is its largest connected part; other parts go to the neighbor that they share most faces (in mm2) with.

    Parameters
    ----------
    components
        All runs with the numbers of their components.
    n_components
        n.
    geometry
        The grid.
    evidence
        Heatmap and offsets, on any grid.
    plan
        Thresholds and connectivity.

    Returns
    -------
    Pieces; the first piece of a component keeps its number.
    """
    split: list[tuple[Body, NDArray[np.intp]]] = []
    sampler = EvidenceSampler(evidence, geometry)
    view, n_cells = CanonicalView.of(geometry), cells_a_voxel(geometry, evidence.geometry)
    found = _Found()
    for body in bodies_of(components, n_components):
        mask = body.mask()
        is_cut = np.count_nonzero(mask) * np.prod(n_cells) <= _MOST_CELLS
        cells = Cells.of(mask, n_cells if is_cut else (1, 1, 1), view)
        votes = _Votes(cells, *sampler.at(cells.middles + [part.start for part in body.box]), plan)
        owner, peak_heat = votes.owners()
        spreads = [votes.spread(owner == n) for n in range(len(peak_heat))]
        own_numbers = found.add(body.number, n_components, peak_heat, spreads)
        if len(peak_heat) > 1:
            own = np.zeros(mask.shape, dtype=np.intp)
            own[tuple(cells.voxels.T)] = np.array(own_numbers)[owner]
            split.append((body, body.read(own)))
    return found.pieces(with_pieces(components, split))


@dataclass
class _Found:
    """Pieces so far: those that keep their component's number, and further ones."""

    first: list[tuple[int, float, float]] = field(default_factory=list)
    further: list[tuple[int, float, float]] = field(default_factory=list)

    def add(self, component: int, n_components: int, heat: list[float], spreads: list[float]) -> list[int]:
        """Take the pieces of a component; their numbers."""
        rows = [(component, h, s) for h, s in zip(heat, spreads, strict=True)]
        start = n_components + len(self.further)
        self.first.append(rows[0])
        self.further.extend(rows[1:])
        return [component, *range(start + 1, start + len(rows))]

    def pieces(self, runs: Runs) -> Pieces:
        """All of them, with the runs that they number."""
        rows = [*self.first, *self.further]
        parents = np.array([row[0] for row in rows], dtype=np.intp)
        return Pieces(runs, parents, np.array([row[1] for row in rows]), np.array([row[2] for row in rows]))


class _Votes:
    """One component: its cells, what is known of each, and how its voxels are shared out."""

    def __init__(self, cells: Cells, heat: Points, offsets: Points, plan: SeparationPlan) -> None:
        self._cells, self._heat, self._plan = cells, heat, plan
        self._spacing = cells.cell_spacing_mm
        self._positions = cells.cell_places * self._spacing
        self._votes = self._positions + offsets

    def owners(self) -> tuple[NDArray[np.intp], list[float]]:
        """Owner (from 0) of each voxel, and the heat at each owner's peak."""
        peaks = self._peaks()
        cells = self._cells
        if len(peaks) < 2:
            return np.zeros(len(cells.voxels), dtype=np.intp), [float(self._heat.max())]
        owner, peaks = self._shared_out(peaks)
        owner = in_one_part(owner, len(peaks), cells.places, cells.spacing_mm, self._plan.connectivity)
        kept, owner = np.unique(owner, return_inverse=True)
        return owner.ravel(), self._heat[peaks[kept]].tolist()

    def spread(self, own: NDArray[np.bool_]) -> float:
        """Root mean square distance, mm, of some voxels' votes from their mean."""
        votes = self._votes[own[self._cells.voxel_of]]
        return float(np.sqrt(((votes - votes.mean(axis=0)) ** 2).sum(axis=1).mean()))

    def _peaks(self) -> NDArray[np.intp]:
        """Cells (their place in the list) that are centers, highest first."""
        hot = np.flatnonzero(self._heat >= self._plan.peak_heat)
        if len(hot) < 2:
            return hot
        places = self._cells.cell_places
        field = np.full(places.max(axis=0) + 1, -np.inf)
        field[tuple(places.T)] = self._heat
        highest = ndimage.maximum_filter(field, footprint=_CUBE, mode="constant", cval=-np.inf)
        is_top = self._heat[hot] >= highest[tuple(places[hot].T)]
        tops = hot[is_top]
        tops = self._prominent(tops[np.argsort(-self._heat[tops], kind="stable")], field)
        chosen: list[int] = []
        for top in tops.tolist():
            apart = self._positions[chosen] - self._positions[top]
            if (np.linalg.norm(apart, axis=1) >= self._plan.peak_distance_mm).all():
                chosen.append(top)
        return np.array(chosen, dtype=np.intp)

    def _prominent(self, tops: NDArray[np.intp], field: Points) -> NDArray[np.intp]:
        """Those of some tops, highest first, that stand out of what lies between them and a higher one.

        A share of the heat is a difference of its logarithm: the tops that remain are its h-maxima (Soille 2003), of
        each the highest. No way that matters leads below the deepest of these falls, so each connected region above it
        is looked at apart, in its own box: a component may fill a whole scan.
        """
        if len(tops) < 2:
            return tops
        depth = -np.log1p(-self._plan.peak_prominence)
        floor = np.log(max(self._heat[tops].min(), _LEAST_HEAT)) - depth
        height = np.log(np.maximum(field, _LEAST_HEAT))
        regions, _ = ndimage.label(height >= floor, _CUBE)
        places = self._cells.cell_places[tops]
        region_of = regions[tuple(places.T)]
        stands_out = np.ones(len(tops), dtype=bool)
        boxes = ndimage.find_objects(regions)
        for region in np.flatnonzero(np.bincount(region_of) > 1).tolist():
            among, box = np.flatnonzero(region_of == region), boxes[region - 1]
            inside = np.where(regions[box] == region, height[box], floor - depth)
            stands_out[among] = _h_maxima(inside, places[among] - [part.start for part in box], depth)
        return tops[stands_out]

    def _shared_out(self, peaks: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Owner of each voxel, once peaks that are no lesion of their own have gone; and the peaks that stay."""
        owner = self._nearest(self._votes, peaks)
        while (weakest := self._needless(owner, peaks)) is not None:
            peaks = np.delete(peaks, weakest)
            bereft = np.flatnonzero(owner == weakest)  # all others keep the peak that they have
            owner -= owner > weakest
            owner[bereft] = self._nearest(self._votes[bereft], peaks)
        return self._nearest_in_radii(owner, peaks), peaks

    def _nearest(self, votes: Points, peaks: NDArray[np.intp]) -> NDArray[np.intp]:
        """The peak that each vote is nearest to."""
        return _least(((votes - self._positions[peak]) ** 2).sum(axis=1) for peak in peaks)

    def _nearest_in_radii(self, owner: NDArray[np.intp], peaks: NDArray[np.intp]) -> NDArray[np.intp]:
        """The peak of each voxel, in the mean over its cells."""
        if len(peaks) < 2:
            return np.zeros(len(self._cells.voxels), dtype=np.intp)
        radii = np.maximum(self._radii(np.bincount(owner, minlength=len(peaks))), self._spacing.min())
        return _least(
            self._cells.totals(_distances(self._votes, center) * _distances(self._positions, center) / radius**2)
            for center, radius in zip(self._positions[peaks], radii, strict=True)
        )

    def _radii(self, counts: NDArray[np.intp]) -> Points:
        """Millimeters, of balls of so many voxels."""
        radii: Points = np.cbrt(3 * counts * np.prod(self._spacing) / (4 * np.pi))
        return radii

    def _needless(self, owner: NDArray[np.intp], peaks: NDArray[np.intp]) -> int | None:
        """The peak that is to go first: with too few votes, or not voted for; else the lower of two that are one."""
        counts = np.bincount(owner, minlength=len(peaks))
        if len(peaks) < 2:
            return None
        if counts.min() < self._plan.least_votes * self._cells.n_a_voxel:
            few = np.flatnonzero(counts == counts.min())
            return int(few[-1])  # peaks come by descending heat
        means = np.stack([np.bincount(owner, weights=column) / counts for column in self._votes.T], axis=1)
        radii = self._radii(counts)
        aside = np.linalg.norm(means - self._positions[peaks], axis=1) / np.maximum(radii, self._spacing.min())
        if aside.max() > self._plan.vote_fraction:
            return int(aside.argmax())
        apart = np.linalg.norm(means[:, None] - means, axis=2)
        limit = np.maximum(self._plan.merge_fraction * np.minimum(radii[:, None], radii), self._plan.peak_distance_mm)
        share = np.where(np.eye(len(peaks), dtype=bool), np.inf, apart / limit)
        if share.min() >= 1:
            return None
        return int(max(np.unravel_index(share.argmin(), share.shape)))


def _least(rows: Iterable[Points]) -> NDArray[np.intp]:
    """(n,) the number of the row that is the least at each place, of equal ones the first; rows are seen one by one."""
    left = iter(rows)
    least = next(left)
    which = np.zeros(least.shape, dtype=np.intp)
    for number, row in enumerate(left, 1):
        is_less = row < least
        which[is_less] = number
        least = np.minimum(least, row)
    return which


def _distances(points: Points, place: Points) -> Points:
    distances: Points = np.linalg.norm(points - place, axis=1)
    return distances


def _h_maxima(height: Points, tops: NDArray[np.intp], depth: float) -> NDArray[np.bool_]:
    """Which of some local maxima (n, 3), highest first, are the first of an h-maximum of this depth."""
    from skimage.morphology import reconstruction  # a sixth of a second, which most cases have no use for

    filled = reconstruction(height - depth, height, footprint=_CUBE)  # type: ignore[no-untyped-call]
    places = tuple(tops.T)
    stands_out: NDArray[np.bool_] = filled[places] <= height[places] - depth + _ROUNDING
    highest = ndimage.maximum_filter(filled, footprint=_CUBE, mode="constant", cval=-np.inf)
    plateau_of = ndimage.label(filled >= highest, _CUBE)[0][places]
    plateau_of[~stands_out] = 0
    first = np.unique(plateau_of, return_index=True)[1]
    is_first = np.zeros(len(tops), dtype=bool)
    is_first[first] = True
    return stands_out & is_first
