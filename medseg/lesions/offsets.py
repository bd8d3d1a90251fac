"""Offsets: touching lesions told apart by what a network says of their centers.

Each voxel of a component votes for a place: its own position plus its offset. Peaks of the heatmap are the centers; a
voxel belongs to the peak that its vote and itself are nearest to, in radii of the lesion. Nothing leaves its component:
where there is no peak, or one, the component stays whole, so no voxel is ever lost. All lengths are millimeters.

References
----------
Cheng et al., Panoptic-DeepLab, CVPR 2020; Wynen et al., ConfLUNet, arXiv 2505.22537 (2025), for lesions; Soille,
Morphological Image Analysis, 2003 (h-maxima); Aurenhammer, Voronoi diagrams, ACM Computing Surveys 1991 (distances
divided by a weight).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.core.plan import SeparationPlan
from medseg.lesions.component_masks import Body, bodies_of, with_pieces
from medseg.lesions.evidence import EvidenceSampler
from medseg.lesions.orientation import CanonicalView
from medseg.lesions.pieces import Pieces
from medseg.lesions.runs import Runs

__all__ = ["split_by_offsets"]

_CUBE = np.ones((3, 3, 3), dtype=bool)
_LEAST_HEAT = 1e-6
_ROUNDING = 1e-9
_RANK_OF_CONNECTIVITY = {6: 1, 18: 2, 26: 3}

Points = NDArray[np.float64]


def split_by_offsets(
    components: Runs,
    n_components: int,
    geometry: Geometry,
    evidence: InstanceEvidence,
    plan: SeparationPlan,
) -> Pieces:
    """Split each component into the lesions whose centers the network sees in it.

    1. Peaks: voxels whose heat is at least `plan.peak_heat` and the highest among their 26 neighbors; from which every
       way to a hotter peak falls by at least the share `plan.peak_prominence` of their heat; of two within
       `plan.peak_distance_mm` the higher stays, of equal ones the one that comes first in R, A, S order.
    2. Each voxel goes to the peak nearest to its vote.
    3. A peak is no lesion if it has fewer voxels than `plan.least_votes`, or if the mean vote of its voxels lies
       farther from it than `plan.vote_fraction` times its radius (that of a ball as large). Peaks whose voxels vote for
       nearly one place (their mean votes lie nearer than `plan.merge_fraction` times the smaller one's radius) are one.
       One peak goes; back to 2.
    4. Each voxel goes to the peak for which the product of two distances is the least: from its vote, and from itself,
       both in radii of the lesion that the votes alone have made. A vote that is right decides alone; one that is
       wrong by a few millimeters is so for a small lesion rather than for a large one.
    5. A lesion is its largest connected part; other parts go to the neighbor that they share most faces (in mm2) with.

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
    view = CanonicalView.of(geometry)
    found = _Found()
    for body in bodies_of(components, n_components):
        mask = body.mask()
        local = _canonical_voxels(mask, view)
        heat, offsets = sampler.at(local.own + [part.start for part in body.box])
        votes = _Votes(view.turn(mask), local.canonical, np.array(view.spacing), heat, offsets, plan)
        owner, peak_heat = votes.owners()
        spreads = [votes.spread(owner == n) for n in range(len(peak_heat))]
        own_numbers = found.add(body.number, n_components, peak_heat, spreads)
        if len(peak_heat) > 1:
            own = np.zeros(mask.shape, dtype=np.intp)
            own[tuple(local.own.T)] = np.array(own_numbers)[owner]
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


@dataclass(frozen=True, eq=False)
class _Voxels:
    """Voxels of a mask: indices in the mask itself, and in its canonical view, in R, A, S order."""

    own: NDArray[np.intp]
    canonical: NDArray[np.intp]


def _canonical_voxels(mask: NDArray[np.bool_], view: CanonicalView) -> _Voxels:
    canonical = np.argwhere(view.turn(mask))
    own = np.empty_like(canonical)
    for place, (axis, direction) in enumerate(zip(view.axes, view.directions, strict=True)):
        column = canonical[:, place]
        own[:, axis] = column if direction.step == 1 else mask.shape[axis] - 1 - column
    return _Voxels(own, canonical)


class _Votes:
    """One component: its voxels, what is known of each, and how they are shared out."""

    def __init__(
        self,
        mask: NDArray[np.bool_],
        voxels: NDArray[np.intp],
        spacing: Points,
        heat: Points,
        offsets: Points,
        plan: SeparationPlan,
    ) -> None:
        self._mask, self._voxels, self._spacing, self._plan = mask, voxels, spacing, plan
        self._heat = heat
        self._positions = voxels * spacing
        self._votes = self._positions + offsets

    def owners(self) -> tuple[NDArray[np.intp], list[float]]:
        """Owner (from 0) of each voxel, and the heat at each owner's peak."""
        peaks = self._peaks()
        if len(peaks) < 2:
            return np.zeros(len(self._votes), dtype=np.intp), [float(self._heat.max())]
        owner, peaks = self._shared_out(peaks)
        owner = self._connected(owner, len(peaks))
        kept, owner = np.unique(owner, return_inverse=True)
        return owner.ravel(), self._heat[peaks[kept]].tolist()

    def spread(self, own: NDArray[np.bool_]) -> float:
        """Root mean square distance, mm, of some voxels' votes from their mean."""
        votes = self._votes[own]
        return float(np.sqrt(((votes - votes.mean(axis=0)) ** 2).sum(axis=1).mean()))

    def _peaks(self) -> NDArray[np.intp]:
        """Voxels (their place in the list) that are centers, highest first."""
        hot = np.flatnonzero(self._heat >= self._plan.peak_heat)
        if len(hot) < 2:
            return hot
        field = np.full(self._mask.shape, -np.inf)
        field[tuple(self._voxels.T)] = self._heat
        highest = ndimage.maximum_filter(field, footprint=_CUBE, mode="constant", cval=-np.inf)
        is_top = self._heat[hot] >= highest[tuple(self._voxels[hot].T)]
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
        places = self._voxels[tops]
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
        while True:
            owner = self._nearest(peaks)
            weakest = self._needless(owner, peaks)
            if weakest is None:
                return self._nearest_in_radii(owner, peaks), peaks
            peaks = np.delete(peaks, weakest)

    def _nearest(self, peaks: NDArray[np.intp]) -> NDArray[np.intp]:
        squared = np.stack([((self._votes - self._positions[peak]) ** 2).sum(axis=1) for peak in peaks])
        nearest: NDArray[np.intp] = squared.argmin(axis=0)
        return nearest

    def _nearest_in_radii(self, owner: NDArray[np.intp], peaks: NDArray[np.intp]) -> NDArray[np.intp]:
        if len(peaks) < 2:
            return owner
        radii = np.maximum(self._radii(np.bincount(owner, minlength=len(peaks))), self._spacing.min())
        away = np.stack(
            [
                _distances(self._votes, center) * _distances(self._positions, center) / radius**2
                for center, radius in zip(self._positions[peaks], radii, strict=True)
            ]
        )
        nearest: NDArray[np.intp] = away.argmin(axis=0)
        return nearest

    def _radii(self, counts: NDArray[np.intp]) -> Points:
        """Millimeters, of balls of so many voxels."""
        radii: Points = np.cbrt(3 * counts * np.prod(self._spacing) / (4 * np.pi))
        return radii

    def _needless(self, owner: NDArray[np.intp], peaks: NDArray[np.intp]) -> int | None:
        """The peak that is to go first: with too few votes, or not voted for; else the lower of two that are one."""
        counts = np.bincount(owner, minlength=len(peaks))
        if len(peaks) < 2:
            return None
        if counts.min() < self._plan.least_votes:
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

    def _connected(self, owner: NDArray[np.intp], n_owners: int) -> NDArray[np.intp]:
        """Each owner's largest part stays; other parts go to the neighbor with the largest common face."""
        owner = owner.copy()
        field = np.zeros(self._mask.shape, dtype=np.int32)
        at = tuple(self._voxels.T)
        neighbors = ndimage.generate_binary_structure(3, _RANK_OF_CONNECTIVITY[self._plan.connectivity])
        fragments: list[NDArray[np.intp]] = []
        for number in range(n_owners):
            field[at] = owner == number
            parts, n_parts = ndimage.label(field, neighbors)
            if n_parts < 2:
                continue
            part_of = parts[at]
            sizes = np.bincount(part_of, minlength=n_parts + 1)[1:]
            for part in range(1, n_parts + 1):
                if part != int(sizes.argmax()) + 1:
                    fragments.append(np.flatnonzero(part_of == part))
        for fragment in fragments:
            owner[fragment] = -1
        waiting = fragments
        while waiting:
            field[...] = -1
            field[at] = owner
            left = [fragment for fragment in waiting if not self._given_away(fragment, field, owner)]
            if len(left) == len(waiting):
                raise AssertionError("a fragment of a component touches the rest of it")
            waiting = left
        return owner

    def _given_away(self, fragment: NDArray[np.intp], field: NDArray[np.int32], owner: NDArray[np.intp]) -> bool:
        """Give a fragment to the owner around it; False if only other fragments are around it."""
        area: dict[int, float] = {}
        for step in np.argwhere(_CUBE) - 1:
            n_moved = int(np.count_nonzero(step))
            if n_moved == 0 or n_moved > _RANK_OF_CONNECTIVITY[self._plan.connectivity]:
                continue
            there = self._voxels[fragment] + step
            is_inside = ((there >= 0) & (there < field.shape)).all(axis=1)
            around = field[tuple(there[is_inside].T)]
            # faces count by their area; edges and corners, which have none, decide only where there is no face
            weight = float(np.prod(self._spacing[step == 0])) if n_moved == 1 else 1e-9
            for number, count in enumerate(np.bincount(around[around >= 0])):
                if count:
                    area[number] = area.get(number, 0.0) + weight * int(count)
        if not area:
            return False
        owner[fragment] = min(area, key=lambda number: (-area[number], number))
        return True


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
