"""Longest diameter and the diameter perpendicular to it, within one axial slice, as a radiologist draws them.

The ends of a diameter lie on the lesion's edge, and a voxel grid leaves open where between the last voxel center
inside and the first one outside that edge runs. Chords between voxel centers come out 0.1 to 0.6 mm short, chords of
the contour halfway to the outside 0.2 to 0.7 mm long (analytic spheres, pixels of 0.7 to 0.9 mm). Chords are therefore
compared with their ends a quarter of a pixel outside the outermost centers: the convex hull is then the mean of both.
The ends of the longest are then drawn to where the form behind them lets the edge be expected (`medseg.lesions.tips`).

Lengths are measured in true millimeters within the slice, on skewed and oblique grids too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import find_contours

from medseg.core.geometry import Geometry
from medseg.lesions.foreground import Box
from medseg.lesions.tips import outer_ends

__all__ = ["OUTWARD_PIXELS", "SliceDiameters", "SlicePlane", "lesion_diameters", "measure_slices"]

OUTWARD_PIXELS = 0.25
"""Steps by which ends lie outside the outermost voxel centers where the form behind them says nothing better."""

_TIE_MM = 1e-6
_N_DIRECTIONS = 32
_PERPENDICULAR_TOLERANCE = np.tan(np.deg2rad(2.0))
_LONGEST_PER_EXTENT = 1.0 / np.cos(np.deg2rad(2.0))
_KEY_DIGITS = 6
_EDGE_STEP_PER_THICKNESS = 0.02  # under the 0.035 that 2 degrees leave a chord, so that no chord lacks its partner
_CACHED_BOX_VOXELS = 64  # specks of few voxels repeat one shape many times over

# Half a turn in equal steps: the longest of these widths falls short of the diameter by a factor cos(half a step).
_ANGLES = np.arange(_N_DIRECTIONS) * np.pi / _N_DIRECTIONS
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
_WIDTH_PER_DIAMETER = np.cos(np.pi / (2 * _N_DIRECTIONS))


def lesion_diameters(labels: NDArray[Any], boxes: list[Box], geometry: Geometry) -> NDArray[np.float64]:
    """Longest and perpendicular diameter of lesions 1..n.

    The longest diameter is the longest distance between two points of the lesion's edge in the same axial slice, over
    all slices. The perpendicular diameter is the longest distance between two edge points of that slice whose
    direction is within 2 degrees of perpendicular to it; where the edge has no such pair, the extent of the lesion
    across the longest diameter. Of longest diameters within 1e-6 mm of each other, the one with the larger
    perpendicular diameter counts. A lesion of one voxel measures half a voxel.

    Which slice and chord is the longest is decided with ends a quarter of a pixel outside the outermost voxel centers;
    its ends are then drawn to where a corner or a round end is expected, see `medseg.lesions.tips`.

    Parameters
    ----------
    labels
        (I, J, K) unsigned integer, lesions 1..n, 0 for background.
    boxes
        n boxes in voxels, entry n - 1 around lesion n, see `lesion_boxes`.
    geometry
        The grid; slices are taken across `geometry.axial_axis`.

    Returns
    -------
    (n, 2) float64, millimeters: longest, perpendicular.

    References
    ----------
    Eisenhauer EA et al. New response evaluation criteria in solid tumours: RECIST 1.1. Eur J Cancer 45:228 (2009).

    Examples
    --------
    >>> labels = np.ones((10, 4, 1), dtype=np.uint16)
    >>> lesion_diameters(labels, [(slice(0, 10), slice(0, 4), slice(0, 1))], Geometry((10, 4, 1), np.eye(4))).round(3)
    array([[9.962, 3.7  ]])
    """
    order = [*(axis for axis in range(3) if axis != geometry.axial_axis), geometry.axial_axis]
    plane = SlicePlane.of(geometry.affine[:3, order])
    known: dict[tuple[tuple[int, ...], bytes], SliceDiameters] = {}
    diameters = np.empty((len(boxes), 2))
    for index, box in enumerate(boxes):
        slices = np.moveaxis(labels[box] == index + 1, geometry.axial_axis, 0)
        key = (slices.shape, slices.tobytes()) if slices.size <= _CACHED_BOX_VOXELS else None
        found = (known.get(key) if key else None) or measure_slices(slices, plane)
        if key:
            known[key] = found
        diameters[index] = found.longest_mm, found.perpendicular_mm
    return diameters


@dataclass(frozen=True, eq=False)
class SlicePlane:
    """The axial slice as a plane.

    Parameters
    ----------
    basis
        (2, 2) millimeters within the slice, column n is one voxel step along in-plane axis n.
    world
        (3, 3) millimeters in RAS+, columns the steps along both in-plane axes and across the slices.
    """

    basis: NDArray[np.float64]
    world: NDArray[np.float64]

    @classmethod
    def of(cls, world: NDArray[np.float64]) -> SlicePlane:
        """The plane of the first two steps."""
        return cls(np.linalg.qr(world[:, :2]).R, world)

    @cached_property
    def pixel_mm(self) -> float:
        """Side of a square as large as a pixel."""
        return float(np.sqrt(abs(np.linalg.det(self.basis))))

    @cached_property
    def outward(self) -> NDArray[np.float64]:
        """(4, 2) millimeters from a voxel center to where ends of diameters may lie."""
        return np.asarray(OUTWARD_PIXELS * np.concatenate([self.basis.T, -self.basis.T]), dtype=np.float64)

    def to_mm(self, pixels: NDArray[Any]) -> NDArray[np.float64]:
        """In-plane millimeters (..., 2) of pixel positions (..., 2)."""
        positions: NDArray[np.float64] = pixels @ self.basis.T
        return positions

    def to_pixels(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixel positions (..., 2) of in-plane millimeters (..., 2)."""
        return np.asarray(np.linalg.solve(self.basis, positions.T).T, dtype=np.float64)

    def first_in_world(self, pairs: NDArray[np.float64], number: int) -> tuple[list[float], NDArray[np.float64]]:
        """Of pairs of ends (D, 2, 2) in slice `number` the first by world x, y, z, its own ends in that order too.

        Which of several equally long chords counts, and where it starts, so does not depend on how the grid is stored.
        """
        across = np.full((*pairs.shape[:2], 1), float(number))
        world = (
            np.concatenate([self.to_pixels(pairs.reshape(-1, 2)).reshape(pairs.shape), across], axis=2) @ self.world.T
        )
        keys = np.round(world, _KEY_DIGITS)
        differs = keys[:, 0] != keys[:, 1]
        axis = differs.argmax(axis=1)
        which = np.arange(len(keys))
        swap = keys[which, 0, axis] > keys[which, 1, axis]
        keys[swap], pairs = keys[swap, ::-1], np.where(swap[:, None, None], pairs[:, ::-1], pairs)
        flat = keys.reshape(len(keys), 6)
        first = int(np.lexsort(flat.T[::-1])[0])
        return flat[first].tolist(), pairs[first]


@dataclass(frozen=True, eq=False)
class SliceDiameters:
    """Diameters of one lesion.

    Parameters
    ----------
    longest_mm, perpendicular_mm
        The longest diameter and the one perpendicular to it.
    slice
        In which slice both lie.
    ends
        (4, 2) pixel positions in it: start and end of the longest, start and end of the perpendicular diameter.
    largest_product_mm2
        Over all slices, of the slice's own longest and perpendicular diameter.
    """

    longest_mm: float
    perpendicular_mm: float
    slice: int
    ends: NDArray[np.float64]
    largest_product_mm2: float


@dataclass(frozen=True, eq=False)
class _Chord:
    """A longest chord of a slice: its number, length, ends (2, 2) in millimeters and unit vector."""

    slice: int
    length: float
    ends: NDArray[np.float64]

    @property
    def direction(self) -> NDArray[np.float64]:
        difference: NDArray[np.float64] = self.ends[1] - self.ends[0]
        return difference / np.linalg.norm(difference)


def measure_slices(slices: NDArray[np.bool_], plane: SlicePlane) -> SliceDiameters:
    """Diameters of a lesion from its slices (S, A, B), True inside."""
    lesion = _Slices(slices, plane)
    chords = lesion.longest_chords()
    compared = max(chord.length for chord in chords)
    drawn = [lesion.drawn(chord) for chord in chords if chord.length >= compared - _TIE_MM]
    longest = max(chord.length for chord in drawn)
    tied = [chord for chord in drawn if chord.length >= longest - _TIE_MM]
    across = [lesion.perpendicular(chord) for chord in tied]
    thickest = max(length for length, _ in across)
    candidates = []
    for chord, (length, pairs) in zip(tied, across, strict=True):
        if length >= thickest - _TIE_MM:
            key, ordered = plane.first_in_world(chord.ends[None], chord.slice)
            candidates.append((key, chord.slice, ordered, pairs))
    _, number, along, pairs = min(candidates, key=lambda candidate: candidate[0])
    ends = np.vstack([along, plane.first_in_world(pairs, number)[1]])
    product = max(longest * thickest, lesion.largest_product(compared * thickest))
    return SliceDiameters(longest, thickest, number, plane.to_pixels(ends), product)


class _Slices:
    """The slices of one lesion, and what was found in them so far."""

    def __init__(self, slices: NDArray[np.bool_], plane: SlicePlane) -> None:
        self.slices, self.plane = slices, plane
        rows, ends = _row_ends(slices)
        self.ends_mm = plane.to_mm(ends)
        self.starts = np.flatnonzero(np.diff(rows, prepend=-1))
        self.stops = np.append(self.starts[1:], rows.size)
        self.numbers = rows[self.starts].tolist()
        self.widths = _widths(self.ends_mm, self.starts, plane)
        self._chords: dict[int, list[_Chord]] = {}
        self._drawn: dict[tuple[bytes, bytes], NDArray[np.float64]] = {}
        self._edges: dict[int, NDArray[np.float64]] = {}
        self._across: dict[tuple[float, ...], tuple[float, NDArray[np.float64]]] = {}

    def chords_of(self, n: int) -> list[_Chord]:
        """The longest chords of the n-th slice that holds lesion."""
        if n not in self._chords:
            length, pairs = _longest_distance(self._ends_of(n), self.plane.outward)
            self._chords[n] = [_Chord(self.numbers[n], length, ends) for ends in pairs]
        return self._chords[n]

    def longest_chords(self) -> list[_Chord]:
        """The longest chords of every slice that may hold the longest of all."""
        widths = self.widths.max(axis=1)
        best = float(widths.max())
        chords: list[_Chord] = []
        for n in np.argsort(-widths, kind="stable").tolist():
            if widths[n] / _WIDTH_PER_DIAMETER < best - _TIE_MM:
                break
            chords += self.chords_of(n)
            best = max(best, chords[-1].length)
        return chords

    def drawn(self, chord: _Chord) -> _Chord:
        """A chord with its ends where the edge is expected."""
        pixels = self.slices[chord.slice]
        key = pixels.tobytes(), chord.ends.tobytes()
        if key not in self._drawn:  # a straight body has the same chord in every slice
            self._drawn[key] = outer_ends(pixels, self.plane, chord.ends)
        ends = self._drawn[key]
        return _Chord(chord.slice, float(np.linalg.norm(ends[1] - ends[0])), ends)

    def perpendicular(self, chord: _Chord) -> tuple[float, NDArray[np.float64]]:
        """Length, and ends (D, 2, 2), of the longest chords perpendicular to one of the same slice."""
        if chord.slice not in self._edges:
            self._edges[chord.slice] = _edge_points(self.slices[chord.slice], self.plane)
        key = (chord.slice, *np.round(chord.direction * np.sign(chord.direction[0] or 1.0), 12).tolist())
        if key not in self._across:  # parallel chords have the same one
            self._across[key] = _perpendicular_chords(self._edges[chord.slice], chord.direction)
        return self._across[key]

    def largest_product(self, least: float) -> float:
        """Product of longest and perpendicular chord of the slice where it is largest; 0 if nowhere above `least`."""
        bounds = _largest_products(self.widths)
        found: list[tuple[float, _Chord]] = []
        for n in np.argsort(-bounds, kind="stable").tolist():
            if bounds[n] <= least:
                break
            for chord in self.chords_of(n):
                # No chord within 2 degrees of perpendicular is longer than the extent across by more than 1 / cos.
                across = _turned(chord.direction)
                extent = np.ptp(self._ends_of(n) @ across) + 2 * np.abs(self.plane.outward @ across).max()
                if chord.length * extent * _LONGEST_PER_EXTENT > least:
                    found.append((chord.length * self.perpendicular(chord)[0], chord))
                    least = max(least, found[-1][0])
        drawn = [self.drawn(chord) for product, chord in found if product >= least - _TIE_MM]
        return max((chord.length * self.perpendicular(chord)[0] for chord in drawn), default=0.0)

    def _ends_of(self, n: int) -> NDArray[np.float64]:
        """Both ends (P, 2) of every pixel row of a slice, millimeters."""
        return self.ends_mm[self.starts[n] : self.stops[n]].reshape(-1, 2)


def _row_ends(slices: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Slice (R,) and first and last pixel (R, 2, 2) of every pixel row with lesion in it; hulls need no other pixel."""
    numbers, rows = np.nonzero(slices.any(axis=2))
    lines = slices[numbers, rows]
    first = lines.argmax(axis=1)
    last = lines.shape[1] - 1 - lines[:, ::-1].argmax(axis=1)
    ends = np.stack([np.stack([rows, first], axis=-1), np.stack([rows, last], axis=-1)], axis=1)
    return numbers, ends.astype(np.float64)


def _widths(ends_mm: NDArray[np.float64], starts: NDArray[np.intp], plane: SlicePlane) -> NDArray[np.float64]:
    """Width (S, D) of each slice in a fan of directions; the largest is at most its longest chord, and hardly less."""
    positions = ends_mm @ _DIRECTIONS
    highest = np.maximum.reduceat(positions.max(axis=1), starts)
    lowest = np.minimum.reduceat(positions.min(axis=1), starts)
    widths: NDArray[np.float64] = highest - lowest + 2 * (plane.outward @ _DIRECTIONS).max(axis=0)
    return widths


def _largest_products(widths: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the product of two perpendicular chords of each slice (S,) cannot exceed, from widths (S, D).

    Between two directions of the fan, half a step apart from the nearer one, the width is at most
    w cos + w' sin of the widths there and a quarter turn further.
    """
    half_step = np.pi / (2 * _N_DIRECTIONS)
    along = widths
    across = np.roll(widths, _N_DIRECTIONS // 2, axis=1)
    longest = along * np.cos(half_step) + across * np.sin(half_step)
    perpendicular = across * np.cos(half_step) + along * np.sin(half_step)
    products: NDArray[np.float64] = (longest * perpendicular).max(axis=1) * _LONGEST_PER_EXTENT
    return products


def _longest_distance(centers: NDArray[np.float64], steps: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Longest distance between two points center + step, (P, 2) and (T, 2), and the ends (D, 2, 2) of all such pairs.

    Only pairs of centers whose distance comes near that of the farthest two can gain enough by the steps.
    """
    differences = centers[:, None] - centers
    lengths = np.sqrt(differences[..., 0] ** 2 + differences[..., 1] ** 2)
    most_gained = 2.0 * float(np.sqrt(np.square(steps).sum(axis=1).max()))
    first, second = np.nonzero(lengths >= lengths.max() - most_gained)
    near = first <= second
    ends = np.stack([centers[first[near]], centers[second[near]]], axis=1)
    both = np.stack([np.repeat(steps, len(steps), axis=0), np.tile(steps, (len(steps), 1))], axis=1)
    moved = (ends[:, None] + both).reshape(-1, 2, 2)
    lengths = np.sqrt(np.square(moved[:, 1] - moved[:, 0]).sum(axis=1))
    longest = float(lengths.max())
    return longest, moved[lengths >= longest - _TIE_MM]


def _edge_points(pixels: NDArray[np.bool_], plane: SlicePlane) -> NDArray[np.float64]:
    """Points of the edge of a slice (A, B), dense enough for perpendicular pairs: (E, 2) millimeters."""
    # On a 0/1 image the contour at 1 - 0.25 crosses a quarter of a pixel outside each outermost center.
    image, level = np.pad(pixels, 1).astype(np.float64), 1.0 - OUTWARD_PIXELS
    contours = find_contours(image, level, fully_connected="high")  # type: ignore[no-untyped-call]
    corners = [plane.to_mm(contour - 1.0) for contour in contours]  # the rim of padding
    thickness = np.ptp(np.concatenate(corners) @ _DIRECTIONS, axis=0).min()
    longest_side = max(np.linalg.norm(np.diff(polygon, axis=0), axis=1).max() for polygon in corners)
    n_steps = math.ceil(longest_side / (_EDGE_STEP_PER_THICKNESS * thickness))
    fractions = (np.arange(n_steps) / n_steps)[:, None, None]
    return np.concatenate([(p[:-1] + fractions * np.diff(p, axis=0)).reshape(-1, 2) for p in corners])


def _turned(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """The unit vector a quarter turn further."""
    return np.array([-direction[1], direction[0]])


def _perpendicular_chords(
    edge: NDArray[np.float64], direction: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Longest distance between edge points (E, 2), millimeters, nearly perpendicular to a unit vector, and its ends.

    Returns the length and the ends (D, 2, 2) of all pairs that far apart.
    """
    along, across = edge @ direction, edge @ _turned(direction)
    order = np.argsort(along)
    along, across = along[order], across[order]
    extent = float(np.ptp(across))
    # Sorted along the longest diameter, partners lie within a narrow window: no need for all pairs.
    last = np.searchsorted(along, along + _PERPENDICULAR_TOLERANCE * extent, side="right")
    first, second = _pairs_up_to(last)
    shift, height = along[second] - along[first], np.abs(across[second] - across[first])
    lengths = np.where(shift <= _PERPENDICULAR_TOLERANCE * height, np.hypot(shift, height), 0.0)
    longest = float(lengths.max(initial=0.0))
    if not longest:
        lowest = edge[order[across.argmin()]]
        return extent, np.stack([lowest, lowest + extent * _turned(direction)])[None]
    tied = np.flatnonzero(lengths >= longest - _TIE_MM)
    return longest, np.stack([edge[order[first[tied]]], edge[order[second[tied]]]], axis=1)


def _pairs_up_to(last: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All pairs (n, m) with n < m < last[n]."""
    n_partners = last - np.arange(last.size) - 1
    first = np.repeat(np.arange(last.size), n_partners)
    rank = np.arange(first.size) - np.repeat(np.cumsum(n_partners) - n_partners, n_partners)
    return first, first + 1 + rank
