"""Contours of pixels and back, exactly: polygons along pixel edges, holes joined to the outside by a keyhole.

The contour of a set of pixels runs along their edges, so its area is theirs, and a pixel is inside if its center is.
Pixels that touch at a corner only make contours of their own. A hole is joined to the contour around it by a line that
runs there and back, which every reader fills rightly, whether it knows of holes or not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill_polygons", "trace_outlines"]

Polygon = NDArray[np.float64]
_Corner = tuple[int, int]


def trace_outlines(mask: NDArray[np.bool_]) -> list[Polygon]:
    """The outlines of a mask.

    Parameters
    ----------
    mask
        (rows, columns) bool.

    Returns
    -------
    Polygons (n, 2): column and row of each corner, pixel centers at whole numbers, so corners lie at halves. Not
    closed: the first corner is not repeated.

    Examples
    --------
    >>> trace_outlines(np.array([[True]]))[0].tolist()
    [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]
    """
    loops = _loops(_edges(mask))
    outer = [loop for loop in loops if _signed_area(loop) > 0]
    holes = sorted((loop for loop in loops if _signed_area(loop) < 0), key=lambda loop: min(loop))
    for hole in holes:
        _join(hole, outer)
    return [_without_straight_corners(np.array(loop, dtype=np.float64)) - 0.5 for loop in outer]


def fill_polygons(polygons: list[Polygon], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centers lie inside an odd number of times.

    Parameters
    ----------
    polygons
        (n, 2) each: column and row of each corner, pixel centers at whole numbers.
    shape
        Rows and columns.

    Returns
    -------
    (rows, columns) bool. A center exactly on an edge counts as inside if it lies on a left or upper edge.
    """
    crossings = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    for polygon in polygons:
        _add_crossings(crossings, polygon)
    inside: NDArray[np.bool_] = np.cumsum(crossings, axis=1)[:, :-1] % 2 == 1
    return inside


def _add_crossings(crossings: NDArray[np.int64], polygon: Polygon) -> None:
    """For each row and each edge that crosses it: the first pixel center right of the crossing."""
    n_rows, n_columns = crossings.shape[0], crossings.shape[1] - 1
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        low, high = min(y0, y1), max(y0, y1)
        rows = np.arange(max(0, int(np.ceil(low))), min(n_rows, int(np.ceil(high))))
        columns = np.ceil(x0 + (rows - y0) * (x1 - x0) / (y1 - y0) - 1e-9).astype(np.int64)
        np.add.at(crossings, (rows, np.clip(columns, 0, n_columns)), 1)


def _edges(mask: NDArray[np.bool_]) -> dict[_Corner, list[_Corner]]:
    """Edges between pixel and outside as steps (column, row) -> (column, row), the pixel on the right hand."""
    padded = np.pad(mask, 1).astype(np.int8)
    across = np.diff(padded, axis=0)[:, 1:-1]  # between row r - 1 and r
    along = np.diff(padded, axis=1)[1:-1]  # between column c - 1 and c
    steps: dict[_Corner, list[_Corner]] = {}
    for row, column in np.argwhere(across == 1).tolist():  # upper edges, to the right
        steps.setdefault((column, row), []).append((column + 1, row))
    for row, column in np.argwhere(across == -1).tolist():  # lower edges, to the left
        steps.setdefault((column + 1, row), []).append((column, row))
    for row, column in np.argwhere(along == -1).tolist():  # right edges, down
        steps.setdefault((column, row), []).append((column, row + 1))
    for row, column in np.argwhere(along == 1).tolist():  # left edges, up
        steps.setdefault((column, row + 1), []).append((column, row))
    return steps


def _loops(steps: dict[_Corner, list[_Corner]]) -> list[list[_Corner]]:
    """Chain steps into loops; where two pixels touch at a corner, turn so that each keeps a loop of its own."""
    loops = []
    while steps:
        start = min(steps)
        loop, corner, direction = [start], start, (0, 0)
        while True:
            nexts = steps[corner]
            wanted = (corner[0] - direction[1], corner[1] + direction[0])  # a right turn, as rows grow downward
            following = wanted if wanted in nexts else nexts[0]
            nexts.remove(following)
            if not nexts:
                del steps[corner]
            direction = (following[0] - corner[0], following[1] - corner[1])
            corner = following
            if corner == start:
                break
            loop.append(corner)
        loops.append(loop)
    return loops


def _signed_area(loop: list[_Corner]) -> float:
    """Above 0 for the outside of pixels, below 0 for holes."""
    points = np.array(loop, dtype=np.float64)
    following = np.roll(points, -1, axis=0)
    return float((points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]).sum()) / 2.0


def _join(hole: list[_Corner], outer: list[list[_Corner]]) -> None:
    """Join a hole to the contour left of its leftmost corner, by a line along a pixel edge."""
    start = min(hole)
    target, index = _hit_to_the_left(start, outer)
    column = target[index][0]
    bridge = [(c, start[1]) for c in (column, start[0])]
    turned = hole[hole.index(start) :] + hole[: hole.index(start)]
    landing = [bridge[0]] if target[index] != bridge[0] else []
    target[index + 1 : index + 1] = [*landing, *turned, start, bridge[0]]


def _hit_to_the_left(corner: _Corner, outer: list[list[_Corner]]) -> tuple[list[_Corner], int]:
    """The contour, and the corner of it before the point, that a line to the left of a corner meets first."""
    best: tuple[int, list[_Corner], int] | None = None
    for loop in outer:
        for index, (here, there) in enumerate(zip(loop, [*loop[1:], loop[0]], strict=True)):
            is_met = here[0] == there[0] < corner[0] and min(here[1], there[1]) <= corner[1] <= max(here[1], there[1])
            if is_met and (best is None or here[0] > best[0]):
                best = (here[0], loop, index)
    if best is None:  # cannot happen: a hole lies inside a contour
        raise ValueError(f"no contour around the hole at {corner}")
    return best[1], best[2]


def _without_straight_corners(points: Polygon) -> Polygon:
    """Leave out corners in the middle of a straight line; turning points of keyholes stay."""
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    ahead = (before * after).sum(axis=1) > 0
    corners: Polygon = points[~((cross == 0) & ahead)]
    return corners
