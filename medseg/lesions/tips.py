"""Where the ends of a lesion's longest diameter lie between the outermost pixel centers inside and the next outside.

Of a round end, pixel centers miss little; of a pointed one, more than a pixel. What the pixels behind an end show
decides:

- **Corner.** Where the lesion's two sides are straight to within the pixels over a third or a half of the diameter (at
  least seven pixels, twenty are enough) and meet at less than 100 degrees, the end is where they meet. Each side is the
  middle of the widest empty strip between pixels inside and outside.
- **Round end.** Else a curve of second degree is laid between the pixels inside and outside within seven pixels of the
  end, and its farthest point counts.
- **Neither.** Where such a curve has no end there, in lesions shorter than ten pixels, and where fewer than eight
  pixels lie within a depth of three, as at the end of a line of pixels: a quarter of a pixel outward.

References
----------
Duda RO, Hart PE, Stork DG. Pattern Classification, 2nd ed. (2001): separating curves by logistic discrimination.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from medseg.lesions.diameters import SlicePlane

__all__ = ["outer_ends"]

_WINDOWS = (1 / 2, 1 / 3)  # over which sides may be straight, per diameter
_LEAST_WINDOW, _LARGEST_WINDOW = 7.0, 20.0  # pixels
_ANGLES = np.deg2rad(np.arange(1.0, 90.0))  # of a side's normal to the diameter
_BLUNTEST, _SHARPEST = np.deg2rad(100.0), np.deg2rad(30.0)
_LEAST_LENGTH, _CAP_DEPTH, _LEAST_IN_CAP = 10.0, 3.0, 8  # pixels, below which the form says nothing
_N_TRIALS = 3  # of which side a pixel in front of an end belongs to
_CURVE_WINDOW = 7.0
_MOST_BEYOND = 1.5  # pixels from the outermost center to the farthest point of the curve
_MOST_OUTWARD = 2.5  # pixels from the outermost center to a corner
_MOST_SIDEWARD = 3.0
_PENALTY = 1e-4  # on the squared coefficients of the curve, against the sum of logistic losses
_N_STEPS, _N_HALVINGS, _CONVERGED = 40, 10, 1e-6
_ROUNDING = 1e-6  # pixels

Points = NDArray[np.float64]


def outer_ends(pixels: NDArray[np.bool_], plane: SlicePlane, ends: Points) -> Points:
    """Move the two ends of a chord to where the edge of the lesion is expected.

    Parameters
    ----------
    pixels
        (A, B), True inside.
    plane
        The slice.
    ends
        (2, 2) millimeters, each a quarter of a pixel from the center of an outermost pixel.

    Returns
    -------
    (2, 2) millimeters.
    """
    chord = ends[1] - ends[0]
    length = float(np.linalg.norm(chord))
    pixel_mm = plane.pixel_mm
    centers = plane.to_mm(np.rint(plane.to_pixels(ends)))
    if length < _LEAST_LENGTH * pixel_mm:
        return ends
    around = np.pad(pixels, 2)
    places = (plane.to_mm(np.indices(around.shape).reshape(2, -1).T - 2.0)) / pixel_mm
    tips = [
        _Tip(places - center / pixel_mm, around.reshape(-1), outward / length, length / pixel_mm)
        for center, outward in zip(centers, (-chord, chord), strict=True)
    ]
    curves = _curves([tip.terms() for tip in tips if tip.corner is None])
    moved = ends.copy()
    for number, tip in enumerate(tips):
        end = tip.end(curves.pop(0) if tip.corner is None else None)
        if end is not None:
            moved[number] = centers[number] + end * pixel_mm
    return moved


class _Tip:
    """The surroundings of one end; lengths in pixels, positions from the end's pixel center."""

    def __init__(self, places: Points, is_inside: NDArray[np.bool_], outward: Points, length: float) -> None:
        self._outward, self._length = outward, length
        self._sideward = np.array([-outward[1], outward[0]])
        squares = np.square(places).sum(axis=1)
        near = squares <= _LARGEST_WINDOW**2 + _ROUNDING
        self._places, self._is_inside, self._squares = places[near], is_inside[near], squares[near]
        self._curve_window = min(_CURVE_WINDOW, length / 2)
        self.corner = self._corner()

    def end(self, curve: Points | None) -> Points | None:
        """Where the edge is expected, given the curve if there is no corner; None where the form says nothing."""
        return self.corner if curve is None else self._round_end(curve)

    def terms(self) -> Points:
        """(N, 6) of the pixels around: 1, s, s^2, t, s t, t^2 inside, their negatives outside."""
        near = self._squares <= self._curve_window**2 + _ROUNDING
        s, t = (self._places[near] / self._curve_window @ axis for axis in (self._outward, self._sideward))
        terms = np.stack([np.ones(s.size), s, s**2, t, s * t, t**2], axis=1)
        terms[~self._is_inside[near]] *= -1.0
        return terms

    def _round_end(self, curve: Points) -> Points | None:
        """The farthest point of the curve between inside and outside, if it has one here."""
        one, s, s2, t, st, t2 = curve.tolist()
        if t2 >= 0:
            return None
        # farthest, the curve runs sideward: t + st s + 2 t2 t = 0
        a, b, c = s2 - st * st / (4 * t2), s - st * t / (2 * t2), one - t * t / (4 * t2)
        root = b * b - 4 * a * c
        if root < 0 or (a >= 0 and b >= 0):
            return None
        farthest = -2 * c / (b - math.sqrt(root)) if b < 0 else (-b - math.sqrt(root)) / (2 * a)
        sideward = -(t + st * farthest) / (2 * t2) * self._curve_window
        beyond = farthest * self._curve_window
        near = self._squares <= self._curve_window**2 + _ROUNDING
        heights = self._places[near & self._is_inside] @ self._outward
        first = float(heights.max())
        if np.count_nonzero(heights >= first - _CAP_DEPTH - _ROUNDING) < _LEAST_IN_CAP:
            return None
        if not 0 <= beyond - first <= _MOST_BEYOND or abs(sideward) > _MOST_SIDEWARD:
            return None
        end: Points = beyond * self._outward
        return end

    def _corner(self) -> Points | None:
        """Where two straight sides meet, or None if this is no corner."""
        for share in _WINDOWS:
            window = min(share * self._length, _LARGEST_WINDOW)
            if window < _LEAST_WINDOW:
                break
            meeting = self._meeting_of_sides(window)
            if meeting is not None:
                return meeting
        return None

    def _meeting_of_sides(self, window: float) -> Points | None:
        """Where the two sides meet, if they are straight that far and nothing that is outside lies between them."""
        near = self._squares <= window**2 + _ROUNDING
        axis: float | None = None
        for _ in range(_N_TRIALS):
            sides = [self._side(near, sign, axis) for sign in (1.0, -1.0)]
            opening = np.pi - sides[0][3] - sides[1][3]
            if not (all(_ROUNDING < gap < np.inf for _, _, gap, _ in sides) and _SHARPEST <= opening < _BLUNTEST):
                return None
            normals, heights = np.stack([side[0] for side in sides]), np.array([side[1] for side in sides])
            meeting: Points = np.linalg.solve(normals, heights)
            if meeting @ self._outward <= 0 or np.linalg.norm(meeting) > _MOST_OUTWARD:
                return None
            is_between = (self._places @ normals.T < heights - _ROUNDING).all(axis=1)
            if not (is_between & ~self._is_inside & near).any():
                return meeting
            axis = float(meeting @ self._sideward)
        return None

    def _side(self, near: NDArray[np.bool_], sign: float, axis: float | None) -> tuple[Points, float, float, float]:
        """Normal, height and width of the widest empty strip along a side; and the normal's angle to the diameter.

        To a side belong the pixels outside that lie on it from the end's center, but for those farther out; or, once it
        is known roughly where the sides meet, all that lie on it from there.
        """
        sideward, outward = sign * (self._places @ self._sideward), self._places @ self._outward
        beside = (sideward > _ROUNDING) & (outward < _ROUNDING) if axis is None else sideward > sign * axis - _ROUNDING
        normals = np.cos(_ANGLES)[:, None] * self._outward + sign * np.sin(_ANGLES)[:, None] * self._sideward
        highest = (self._places[near & self._is_inside] @ normals.T).max(axis=0)
        lowest = (self._places[near & beside & ~self._is_inside] @ normals.T).min(axis=0, initial=np.inf)
        gaps = np.round(lowest - highest, 9)
        widest = int(gaps.argmax())
        return normals[widest], float(highest[widest] + lowest[widest]) / 2, float(gaps[widest]), float(_ANGLES[widest])


def _curves(tips: list[Points]) -> list[Points]:
    """For the terms (N, 6) of each tip, coefficients (6,) with positive sums inside: penalized logistic discrimination.

    The loss is convex; Newton steps, halved where they overshoot, end within rounding of its minimum.
    """
    if not tips:
        return []
    terms = np.zeros((len(tips), max(map(len, tips)), 6))
    for number, own in enumerate(tips):
        terms[number, : len(own)] = own  # a row of zeros adds a constant to the loss
    curves = np.zeros((len(tips), 6))
    margins, loss = _margins(terms, curves)
    for _ in range(_N_STEPS):
        wrong = 0.5 * (1.0 - np.tanh(0.5 * margins))
        slope = _PENALTY * curves - (wrong[:, None] @ terms)[:, 0]
        bend = (terms * (wrong * (1.0 - wrong))[:, :, None]).transpose(0, 2, 1) @ terms + _PENALTY * np.eye(6)
        step = np.linalg.solve(bend, slope[:, :, None])[:, :, 0]
        before, loss_before, size = curves, loss, np.abs(step).max() / max(np.abs(curves).max(), 1.0)
        for _ in range(_N_HALVINGS):
            curves = before - step
            margins, loss = _margins(terms, curves)
            is_worse = loss > loss_before
            if not is_worse.any():
                break
            step = np.where(is_worse[:, None], 0.5 * step, step)
        if size < _CONVERGED:
            break
    return list(curves)


def _margins(terms: Points, curves: Points) -> tuple[Points, Points]:
    """Sums of terms (E, N), positive where the curve has a pixel on its right side, and the loss (E,)."""
    margins = (terms @ curves[:, :, None])[:, :, 0]
    loss = np.logaddexp(0.0, -margins).sum(axis=1) + 0.5 * _PENALTY * np.square(curves).sum(axis=1)
    return margins, loss
