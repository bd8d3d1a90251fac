"""Watershed on the distance to the surface, in millimeters: parts touching lesions at their necks.

Lesions that touch make one connected component, yet each keeps a core that is far from the surface. The cores are the
maxima of the distance transform; the watershed grows them back to the full component. All lengths are millimeters, so
thick slices and fine slices of one body come apart alike.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medseg.core.geometry import Geometry
from medseg.core.plan import SeparationPlan
from medseg.lesions.component_masks import Body, bodies_of, with_pieces
from medseg.lesions.orientation import CanonicalView
from medseg.lesions.pieces import Pieces
from medseg.lesions.runs import Runs

__all__ = ["split_components"]

_CUBE = np.ones((3, 3, 3), dtype=bool)
_RANK_OF_CONNECTIVITY = {6: 1, 18: 2, 26: 3}
_SMOOTHING_PER_SPACING = 0.5  # standard deviation over the smallest spacing: below the size of any feature kept


def split_components(
    components: Runs,
    n_components: int,
    geometry: Geometry,
    plan: SeparationPlan,
    probability: NDArray[np.float32] | None = None,
) -> Pieces:
    """Split each component where it narrows.

    Within a component: Euclidean distance to the background in mm, lightly smoothed; one marker for each maximum that
    rises more than h above the pass to a higher one, h = max(`plan.h_min_mm`, `plan.h_fraction` * largest distance);
    watershed of the negative distance from the markers. A component with one marker stays whole, and no voxel is lost.
    Each component is worked on in RAS orientation, so that ties fall alike however the grid is oriented.

    Parameters
    ----------
    components
        All runs with the numbers of their components; the outside of the grid counts as background.
    n_components
        n.
    geometry
        The grid.
    plan
        Depth of the maxima, share of valleys, and connectivity.
    probability
        (I, J, K) foreground probability, whose valleys part lesions if the plan gives them a share; or None.

    Returns
    -------
    Pieces; the first piece of a component keeps its number.

    References
    ----------
    Beucher S, Meyer F. The morphological approach to segmentation: the watershed transformation. In: Mathematical
    Morphology in Image Processing (1993). Soille P. Morphological Image Analysis, 2nd ed. (2003), section 6.3.4
    (h-maxima).
    """
    split: list[tuple[Body, NDArray[np.intp]]] = []
    parents = list(range(1, n_components + 1))
    view = CanonicalView.of(geometry)
    for body in bodies_of(components, n_components):
        if body.is_tiny:
            continue
        mask = body.mask()
        valleys = None if probability is None or plan.valley_share == 0 else view.turn(probability[body.box])
        pieces = _split(view.turn(mask), view.spacing, plan, valleys)
        if pieces is None:
            continue
        own = np.zeros(mask.shape, dtype=np.intp)
        view.turn(own)[...] = pieces
        numbers = body.read(own)
        split.append((body, np.where(numbers > 1, numbers + len(parents) - 1, body.number)))
        parents.extend([body.number] * (int(numbers.max()) - 1))
    return Pieces(with_pieces(components, split), np.array(parents, dtype=np.intp))


def _split(
    component: NDArray[np.bool_],
    spacing: tuple[float, ...],
    plan: SeparationPlan,
    probability: NDArray[np.float32] | None,
) -> NDArray[Any] | None:
    """Pieces 1..m of a cropped component, or None if it stays whole."""
    from skimage.morphology import local_maxima  # a sixth of a second, which most commands have no use for
    from skimage.segmentation import watershed

    inside = _padded(component)
    places = np.flatnonzero(inside)
    distance = _distance(inside, places, spacing)
    h = max(plan.h_min_mm, plan.h_fraction * float(distance.max()))
    if probability is not None:
        distance *= 1 - plan.valley_share + plan.valley_share * _padded(probability)
    distance = _smooth(distance, inside, spacing)
    values = distance.reshape(-1)[places]
    if values.max() - values.min() <= h:  # no pass lies deep enough below the top
        return None
    if _has_one_top(distance, places):
        return None
    is_top = local_maxima(distance, footprint=_CUBE)  # type: ignore[no-untyped-call]
    tops, n_tops = ndimage.label(is_top, structure=_CUBE)
    if n_tops == 1:
        return None
    neighbors = ndimage.generate_binary_structure(3, _RANK_OF_CONNECTIVITY[plan.connectivity])
    basins = watershed(-distance, tops, neighbors, mask=inside)  # type: ignore[no-untyped-call]
    heights = np.zeros(n_tops + 1)
    heights[tops[is_top]] = distance[is_top]  # a top is level
    piece_of_basin = _merge_shallow(heights, _passes(basins, distance, neighbors), h)
    if piece_of_basin.max() == 1:
        return None
    pieces: NDArray[Any] = piece_of_basin[basins[1:-1, 1:-1, 1:-1]]
    return pieces


def _padded(array: NDArray[Any]) -> NDArray[Any]:
    """With a border of 0, one voxel wide; a third of the time of `numpy.pad`."""
    padded = np.zeros([extent + 2 for extent in array.shape], dtype=array.dtype)
    padded[1:-1, 1:-1, 1:-1] = array
    return padded


def _distance(inside: NDArray[np.bool_], places: NDArray[np.intp], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Distance in mm to the nearest voxel outside, 0 there. The sum over axes is taken at the places inside only."""
    nearest = ndimage.distance_transform_edt(inside, sampling=spacing, return_distances=False, return_indices=True)
    axes = zip(np.unravel_index(places, inside.shape), nearest, spacing, strict=True)
    squares = [((own - there.reshape(-1)[places]) * step) ** 2 for own, there, step in axes]
    distance = np.zeros(inside.shape)
    distance.reshape(-1)[places] = np.sqrt(squares[0] + squares[1] + squares[2])
    return distance


def _has_one_top(distance: NDArray[np.float64], places: NDArray[np.intp]) -> bool:
    """True only if all voxels that no neighbor exceeds are neighbors of each other: then they are the one maximum."""
    around = distance.reshape(-1)
    # The border of 0 parts lines and planes, so that steps in memory are steps along the axes.
    for step in (stride // distance.itemsize for stride in distance.strides):
        wide = around.copy()
        np.maximum(wide[step:], around[:-step], out=wide[step:])
        np.maximum(wide[:-step], around[step:], out=wide[:-step])
        around = wide
    highest = places[around[places] == distance.reshape(-1)[places]]
    return all(np.ptp(axis) <= 1 for axis in np.unravel_index(highest, distance.shape))


def _smooth(
    distance: NDArray[np.float64], inside: NDArray[np.bool_], spacing: tuple[float, ...]
) -> NDArray[np.float64]:
    """Take off the ripple that the voxel grid puts on the distance; 0 outside. Overwrites the distance."""
    for axis, kernel in enumerate(_kernels(spacing)):
        ndimage.correlate1d(distance, kernel, axis, output=distance, mode="constant")
    distance *= inside
    return distance


@lru_cache(maxsize=16)
def _kernels(spacing: tuple[float, ...]) -> tuple[NDArray[np.float64], ...]:
    """A Gaussian for each axis, cut at four standard deviations, as `scipy.ndimage.gaussian_filter` makes it."""
    kernels = []
    for step in spacing:
        sigma = _SMOOTHING_PER_SPACING * min(spacing) / step
        reach = int(4.0 * sigma + 0.5)
        bell = np.exp(-0.5 / sigma**2 * np.arange(-reach, reach + 1) ** 2)
        kernels.append(bell / bell.sum())
    return tuple(kernels)


def _passes(
    basins: NDArray[np.int32], distance: NDArray[np.float64], neighbors: NDArray[np.bool_]
) -> list[tuple[float, int, int]]:
    """Height and the two basins of every pass between touching basins, highest first."""
    n_basins = int(basins.max())
    small = basins.astype(np.min_scalar_type(n_basins))
    # from the side of the lower number, each pair of voxels is met once
    is_border = (ndimage.maximum_filter(small, size=3, mode="constant") > small) & (small > 0)
    places = np.flatnonzero(is_border)
    owner, height = small.reshape(-1), distance.reshape(-1)
    found: list[NDArray[np.intp]] = []
    heights: list[NDArray[np.float64]] = []
    for offset in np.argwhere(neighbors) - 1:
        there = places + int(offset @ (basins.shape[1] * basins.shape[2], basins.shape[2], 1))
        is_pass = owner[there] > owner[places]
        low, high = places[is_pass], there[is_pass]
        found.append(owner[low].astype(np.intp) * (n_basins + 1) + owner[high])
        heights.append(np.minimum(height[low], height[high]))
    pairs, slots = np.unique(np.concatenate(found), return_inverse=True)
    highest = np.zeros(pairs.size)
    np.maximum.at(highest, slots.ravel(), np.concatenate(heights))
    order = np.lexsort((pairs, -highest))
    return [(float(highest[n]), *divmod(int(pairs[n]), n_basins + 1)) for n in order]


def _merge_shallow(heights: NDArray[np.float64], passes: list[tuple[float, int, int]], h: float) -> NDArray[np.intp]:
    """Piece (from 1) of each basin (n + 1,), once tops that rise h or less above a pass have joined its other side.

    Going down through the passes, each one joins two mountains. The lower of the two, if shallow, belongs to the piece
    that it meets there; else it remains a piece. This is the watershed from the h-maxima, without computing them.
    """
    mountain = list(range(heights.size))
    piece = list(range(heights.size))
    for height, a, b in passes:
        lower, upper = sorted((_root(mountain, a), _root(mountain, b)), key=lambda top: (heights[top], -top))
        if lower == upper:
            continue
        mountain[lower] = upper
        if heights[lower] - height <= h:
            inner, outer = (a, b) if _root(piece, a) == lower else (b, a)
            piece[_root(piece, inner)] = _root(piece, outer)
    roots = np.array([_root(piece, n) for n in range(heights.size)])
    _, numbers = np.unique(roots, return_inverse=True)
    return numbers.ravel()


def _root(parents: list[int], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node
