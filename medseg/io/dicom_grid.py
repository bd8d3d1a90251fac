"""From a stack of frames to a regular grid: slices in order, spacing from their positions, or the reason why not.

DICOM speaks LPS; here it becomes RAS+. The array axes are (column, row, slice): the first index walks along a row of
pixels. A tilted gantry shears the affine, and the shear is kept as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medseg.core.geometry import Geometry
from medseg.errors import IncompleteSeries, InvalidGeometry, UnreadableImage, UnsupportedDimensions
from medseg.io.dicom_frames import Frame
from medseg.io.dicom_stacks import SAME_PLACE_MM, frame_normal, missing_place

__all__ = ["OrderedStack", "SameFrames", "order_frames"]

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_STEP_TOLERANCE = 0.01  # of the slice spacing, and at least _STEP_TOLERANCE_MM
_STEP_TOLERANCE_MM = 0.01
_COSINE_TOLERANCE = 1e-3
_COSINE_ROUNDING = 1e-5  # what decimal strings leave over
_LARGEST_GAP_STEPS = 10  # a lesion may lie whole within a wider gap: what is made up there is no volume any more

SameFrames = Callable[[Frame, Frame], bool]


@dataclass(frozen=True, eq=False)
class OrderedStack:
    """A regular grid and the frames that fill it.

    Parameters
    ----------
    frames
        Along the normal. Frame k is slice k, unless `between` says otherwise.
    geometry
        The grid, RAS+.
    notes
        What was left out, made up or rounded.
    between
        One entry a slice of a grid laid across gaps: the frame at or before the slice, and how far it lies towards the
        next one (0..1). Empty for a stack without gaps.
    """

    frames: tuple[Frame, ...]
    geometry: Geometry
    notes: tuple[str, ...] = ()
    between: tuple[tuple[int, float], ...] = ()


def order_frames(
    frames: tuple[Frame, ...], name: str, *, are_same: SameFrames | None = None, allow_gaps: bool = False
) -> OrderedStack:
    """Order the frames of a stack along their normal and work out its grid.

    Parameters
    ----------
    frames
        One stack, in any order.
    name
        What messages call it.
    are_same
        Whether two frames of one place hold the same pixels; then one is left out. None does not look at pixels, and
        takes them to be the same.
    allow_gaps
        Lay a regular grid of the usual step across missing or irregular slices; not across gaps of more than 10 steps.

    Raises
    ------
    InvalidGeometry
        If a frame does not say where it lies, or its spacing or orientation is impossible.
    UnreadableImage
        If a file is damaged.
    UnsupportedDimensions
        If there is one slice that does not say how thick it is.
    IncompleteSeries
        If slices are missing, doubled or irregularly spaced (beyond 1 % of the spacing or 0.01 mm).
    """
    for frame in frames:
        _check_frame(frame)
    first = min(frames, key=lambda frame: str(frame.file.path))
    normal = frame_normal(first)
    ordered = sorted(frames, key=lambda frame: (float(np.dot(normal, _position(frame))), str(frame.file.path)))
    kept, notes = _without_doubles(ordered, normal, name, are_same)
    notes = [*_frame_notes(kept), *notes]
    if len(kept) == 1:
        step, thickness_note = _single_step(kept[0], normal, name)
        return OrderedStack(tuple(kept), _geometry(kept[0], step, 1, name), (*notes, thickness_note))
    positions = np.array([_position(frame) for frame in kept])
    uneven = _uneven_steps(positions, normal)
    if uneven.size and allow_gaps:
        return _across_gaps(tuple(kept), positions, normal, name, notes)
    if uneven.size:
        raise IncompleteSeries(_describe_gaps(name, positions, normal, uneven))
    _check_line(positions, normal, name)
    step = (positions[-1] - positions[0]) / (len(kept) - 1)
    return OrderedStack(tuple(kept), _geometry(kept[0], step, len(kept), name), tuple(notes))


def _position(frame: Frame) -> NDArray[np.float64]:
    return np.array(frame.position, dtype=np.float64)


def _check_frame(frame: Frame) -> None:
    file = frame.file
    if file.fault is not None:
        raise UnreadableImage(f"{file.path} is truncated: {file.fault}. Fetch it anew")
    if (missing := missing_place(frame)) is not None:
        raise InvalidGeometry(f"{file.path} does not say where it lies: {missing} is missing")
    if min(frame.pixel_spacing or (0.0,)) <= 0:
        raise InvalidGeometry(f"{file.path}: PixelSpacing must be above 0 mm; got {frame.pixel_spacing}")
    if _cosine_error(frame.orientation) > _COSINE_TOLERANCE:
        raise InvalidGeometry(
            f"{file.path}: ImageOrientationPatient must be two perpendicular unit vectors; got {frame.orientation}"
        )


@lru_cache(maxsize=256)  # the slices of a stack have the same
def _cosine_error(orientation: tuple[float, ...] | None) -> float:
    """By how much the direction cosines miss being two perpendicular unit vectors."""
    row, column = np.reshape(np.array(orientation), (2, 3))
    return float(max(abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1), abs(np.dot(row, column))))


def _frame_notes(frames: list[Frame]) -> list[str]:
    """What is odd about the frames but stays as it is stored."""
    notes = []
    error = max(_cosine_error(frame.orientation) for frame in frames)
    if error > _COSINE_ROUNDING:
        notes.append(f"ImageOrientationPatient was {error:.1e} off perpendicular unit vectors: normalized")
    if any(frame.file.photometric == "MONOCHROME1" for frame in frames):
        notes.append("MONOCHROME1: shown inverted on a screen; the values are as stored")
    return notes


def _without_doubles(
    ordered: list[Frame], normal: NDArray[np.float64], name: str, are_same: SameFrames | None
) -> tuple[list[Frame], list[str]]:
    """Leave out frames that repeat the one before, at the same place with the same pixels; refuse other pixels."""
    kept = ordered[:1]
    for frame in ordered[1:]:
        apart = _position(frame) - _position(kept[-1])
        if abs(float(np.dot(normal, apart))) > SAME_PLACE_MM:
            kept.append(frame)
        elif np.linalg.norm(apart) > SAME_PLACE_MM or (are_same is not None and not are_same(kept[-1], frame)):
            raise IncompleteSeries(_describe_double(ordered, normal, name, kept[-1], frame))
    n_doubles = len(ordered) - len(kept)
    if not n_doubles:
        return kept, []
    which = "the same pixels" if are_same is not None else "pixels that have not been compared"
    return kept, [f"left out {n_doubles} doubled slice(s): the same place, {which}"]


def _describe_double(ordered: list[Frame], normal: NDArray[np.float64], name: str, first: Frame, second: Frame) -> str:
    heights = np.array([np.dot(normal, _position(frame)) for frame in ordered])
    n_more = int(np.sum(np.diff(heights) <= SAME_PLACE_MM))
    return (
        f"{name} has {n_more} slice(s) too many at the same place (first at {_place(_position(first), normal)}: "
        f"{first.file.path.name} and {second.file.path.name} differ), and nothing in the headers tells them apart. "
        "Remove what does not belong"
    )


def _single_step(frame: Frame, normal: NDArray[np.float64], name: str) -> tuple[NDArray[np.float64], str]:
    """The extent of a single slice along its normal, and where it is from."""
    for what, value in (("SpacingBetweenSlices", frame.slice_spacing), ("SliceThickness", frame.slice_thickness)):
        if value is not None and abs(value) > 0:
            return normal * abs(value), f"a single slice; its {abs(value):g} mm along the normal are from {what}"
    raise UnsupportedDimensions(
        f"{name} is a single slice without SpacingBetweenSlices or SliceThickness: its volume cannot be known"
    )


def _geometry(first: Frame, step: NDArray[np.float64], n_slices: int, name: str) -> Geometry:
    row_spacing, column_spacing = first.pixel_spacing or (0.0, 0.0)
    row, column = _exact_cosines(first)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = row * column_spacing, column * row_spacing, step
    lps[:3, 3] = _position(first)
    try:
        return Geometry((first.columns, first.rows, n_slices), _LPS_TO_RAS @ lps)
    except InvalidGeometry as error:
        raise InvalidGeometry(f"{name}: {error}") from error


def _exact_cosines(frame: Frame) -> NDArray[np.float64]:
    """(2, 3) the direction cosines, made perpendicular unit vectors where they are off by more than rounding."""
    cosines = np.reshape(np.array(frame.orientation, dtype=np.float64), (2, 3))
    if _cosine_error(frame.orientation) <= _COSINE_ROUNDING:
        return cosines
    left, _, right = np.linalg.svd(cosines, full_matrices=False)
    exact: NDArray[np.float64] = left @ right
    return exact


def _usual_step(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> tuple[float, float]:
    """The usual distance of slices along the normal, and by how much a step may miss it, mm."""
    usual = float(np.quantile(np.diff(positions @ normal), 0.5, method="lower"))
    return usual, max(_STEP_TOLERANCE_MM, _STEP_TOLERANCE * usual)


def _uneven_steps(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.intp]:
    """After which slices a step is not the usual one."""
    usual, tolerance = _usual_step(positions, normal)
    return np.flatnonzero(np.abs(np.diff(positions @ normal) - usual) > tolerance)


def _check_line(positions: NDArray[np.float64], normal: NDArray[np.float64], name: str) -> None:
    """Refuse slices that lie beside the straight line through the others."""
    _, tolerance = _usual_step(positions, normal)
    heights = positions @ normal
    slopes = np.diff(positions, axis=0) / np.diff(heights)[:, None]
    drift = np.linalg.norm(slopes - np.median(slopes, axis=0), axis=1) * np.diff(heights)
    if drift.max() > tolerance:
        worst = _place(positions[int(np.argmax(drift))], normal)
        raise IncompleteSeries(
            f"{name} is no straight stack: after {worst} the next slice lies {drift.max():.2f} mm beside the line of "
            "the others"
        )


def _across_gaps(
    frames: tuple[Frame, ...], positions: NDArray[np.float64], normal: NDArray[np.float64], name: str, notes: list[str]
) -> OrderedStack:
    """A grid of the usual step from the first to the last slice; slices between stored ones are interpolated."""
    _check_line(positions, normal, name)
    heights = positions @ normal - positions[0] @ normal
    usual, tolerance = _usual_step(positions, normal)
    widest = float(np.diff(heights).max())
    if _is_too_wide(widest, usual, tolerance):
        raise IncompleteSeries(_describe_gaps(name, positions, normal, _uneven_steps(positions, normal)))
    n_steps = max(round(float(heights[-1]) / usual), 1)
    if abs(heights[-1] - n_steps * usual) <= tolerance * n_steps:
        usual = float(heights[-1]) / n_steps  # the stored slices lie on the grid: keep them exactly
    else:
        n_steps = int(heights[-1] / usual)
    between = tuple(_neighbors(heights, k * usual, tolerance) for k in range(n_steps + 1))
    n_made = sum(weight > 0 for _, weight in between)
    note = (
        f"--allow-gaps: {n_made} of {n_steps + 1} slices interpolated at a step of {usual:.4g} mm; the widest gap is "
        f"{widest:.4g} mm"
    )
    step = (positions[-1] - positions[0]) * (usual / float(heights[-1]))
    return OrderedStack(frames, _geometry(frames[0], step, n_steps + 1, name), (*notes, note), between)


def _is_too_wide(gap: float, usual: float, tolerance: float) -> bool:
    """Whether a step between slices, mm, is not interpolated across."""
    return gap > _LARGEST_GAP_STEPS * usual + tolerance


def _neighbors(heights: NDArray[np.float64], height: float, tolerance: float) -> tuple[int, float]:
    """The frame at or below a height, and the weight of the next one."""
    nearest = int(np.argmin(np.abs(heights - height)))
    if abs(heights[nearest] - height) <= tolerance:
        return nearest, 0.0
    below = int(np.searchsorted(heights, height, side="right")) - 1
    return below, float((height - heights[below]) / (heights[below + 1] - heights[below]))


def _describe_gaps(
    name: str, positions: NDArray[np.float64], normal: NDArray[np.float64], uneven: NDArray[np.intp]
) -> str:
    usual, tolerance = _usual_step(positions, normal)
    steps = np.diff(positions @ normal)
    n_missing = int(np.sum(np.maximum(np.rint(steps[uneven] / usual) - 1, 0)))
    gaps = ", ".join(f"{steps[gap]:.2f} mm after {_place(positions[gap], normal)}" for gap in uneven[:5])
    more = f" and {uneven.size - 5} more" if uneven.size > 5 else ""
    lacks = f"lacks about {n_missing} slice(s)" if n_missing else "is irregularly spaced"
    advice = (
        f"Fetch the series whole; a step of more than {_LARGEST_GAP_STEPS} times the usual one is not interpolated "
        "across, not even with --allow-gaps"
        if _is_too_wide(float(steps.max()), usual, tolerance)
        else "Fetch the series whole, or let --allow-gaps interpolate across"
    )
    return f"{name} {lacks}: steps of {gaps}{more}; {usual:.2f} mm elsewhere. Volumes would be wrong. {advice}"


def _place(position: NDArray[np.float64], normal: NDArray[np.float64]) -> str:
    """A slice position along the patient axis nearest to the normal, as "z = -212.50 mm" (LPS, as DICOM says it)."""
    axis = int(np.argmax(np.abs(normal)))
    return f"{'xyz'[axis]} = {position[axis]:.2f} mm"
