"""Stacks: the frames of one series that make one volume.

Frames of different size, pixel spacing or orientation never share a stack. Frames that lie at one place are told
apart by what their headers say (echo, magnitude or phase, time, b-value, ...), but only then: a regular series whose
acquisition number or image type changes half-way is one stack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from medseg.io.dicom_frames import Frame, FrameKeys

__all__ = ["SAME_PLACE_MM", "Stack", "frame_normal", "missing_place", "split_into_stacks"]

SAME_PLACE_MM = 1e-3
_SAME_DIRECTION = 1e-4  # of cosines, and millimeters of pixel spacing
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_FEW_SLICES = 20
_FRAGMENT_SLICES = 3

# in this order: what is most surely another volume first
_KEYS = ("frame_of_reference", "stack_id", "image_type", "component", "echo_time", "echo_number", "b_value")
_MORE_KEYS = ("gradient", "temporal_position", "kvp", "kernel", "acquisition_number", "acquisition_time")
_RANKED_KEYS = ("trigger_time", "acquisition_time")  # differ in every slice; their order at each place is what counts
_WHOLE_STACKS_ONLY = ("acquisition number", "acquisition time")
_SAID_TO_BE_SEPARATE = ("frame of reference", "stack id")


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames of one volume, in no order yet.

    `label` says what sets the stack apart within its series, `aside` why it is not chosen by itself (localizer,
    derived, ...).
    """

    frames: tuple[Frame, ...]
    label: str = ""
    aside: str | None = None

    @property
    def is_placed(self) -> bool:
        """Whether its frames say where they lie."""
        return _is_placed(self.frames[0])


def split_into_stacks(frames: Sequence[Frame]) -> list[Stack]:
    """The stacks of one series, those with most frames first within one kind.

    Frames that do not say where they lie make a stack of their own, which no grid will be found for.
    """
    placed = [frame for frame in frames if _is_placed(frame)]
    stacks = []
    for same_grid in _by_grid(placed):
        stacks += _by_keys(same_grid, "")
    unplaced: dict[Hashable, list[Frame]] = {}
    for frame in frames:
        if not _is_placed(frame):
            unplaced.setdefault((frame.rows, frame.columns, frame.keys.image_type), []).append(frame)
    stacks += [(group, "without a place") for group in unplaced.values()]
    reasons = [_set_aside(group, [other for other, _ in stacks]) for group, _ in stacks]
    return [Stack(tuple(g), label, reason) for (g, label), reason in zip(stacks, reasons, strict=True)]


def frame_normal(frame: Frame) -> NDArray[np.float64]:
    """(3,) float64, the unit normal of a frame that says where it lies, LPS."""
    row, column = np.reshape(np.array(frame.orientation, dtype=np.float64), (2, 3))
    normal = np.cross(row, column)
    length = np.linalg.norm(normal)
    return normal if length == 0 else normal / length


def missing_place(frame: Frame) -> str | None:
    """The first tag that a frame lacks to say where it lies; None if it has them all."""
    tags = {
        "ImagePositionPatient": frame.position,
        "ImageOrientationPatient": frame.orientation,
        "PixelSpacing": frame.pixel_spacing,
    }
    return next((keyword for keyword, value in tags.items() if value is None), None)


def _is_placed(frame: Frame) -> bool:
    return missing_place(frame) is None


def _by_grid(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames of equal size, spacing and orientation together, and secondary captures apart from images."""
    kinds: dict[Hashable, list[Frame]] = {}
    for frame in frames:
        key = (_is_capture(frame), frame.rows, frame.columns, frame.pixel_spacing, frame.orientation)
        kinds.setdefault(key, []).append(frame)
    groups: list[list[Frame]] = []
    for members in kinds.values():
        same = next((group for group in groups if _have_one_grid(group[0], members[0])), None)
        if same is None:
            groups.append(members)
        else:
            same.extend(members)
    return groups


def _is_capture(frame: Frame) -> bool:
    return frame.file.sop_class.startswith(_SECONDARY_CAPTURE)


def _have_one_grid(one: Frame, other: Frame) -> bool:
    """Equal kind and size; spacing and orientation within the rounding of decimal strings."""
    if (_is_capture(one), one.rows, one.columns) != (_is_capture(other), other.rows, other.columns):
        return False
    numbers = [np.array((*(f.pixel_spacing or ()), *(f.orientation or ()))) for f in (one, other)]
    return float(np.abs(numbers[0] - numbers[1]).max()) <= _SAME_DIRECTION


def _by_keys(frames: list[Frame], label: str) -> list[tuple[list[Frame], str]]:
    """Split frames of one grid by what tells those at one place apart; whole where none lie at one place."""
    places = _places(frames)
    crowd = int(np.bincount(places).max())
    if crowd == 1:
        return [(frames, label)]
    for name, groups in _splits(frames, places):
        if _is_clean_split(name, groups, places, crowd):
            split = []
            for value, members in groups:
                part = f"{label}, {name} {value}" if label else f"{name} {value}"
                split += _by_keys([frames[index] for index in members], part)
            return split
    return [(frames, label)]


_Groups = list[tuple[str, list[int]]]


def _splits(frames: list[Frame], places: NDArray[np.intp]) -> list[tuple[str, _Groups]]:
    """Every way to split the frames, in the order in which they are tried."""
    ways = [(name.replace("_", " "), _grouped(frames, _value_of(name))) for name in (*_KEYS, *_MORE_KEYS)]
    ways += [(f"dimension {axis + 1}", _grouped(frames, _dimension(axis))) for axis in range(_n_dimensions(frames))]
    ranked = [(f"{name.replace('_', ' ')} rank", _ranked(frames, places, name)) for name in _RANKED_KEYS]
    return [(name, groups) for name, groups in (*ways, *ranked) if len(groups) > 1]


def _value_of(name: str) -> Callable[[FrameKeys], Hashable]:
    return attrgetter(name)


def _dimension(axis: int) -> Callable[[FrameKeys], Hashable]:
    return lambda keys: keys.dimensions[axis]


def _n_dimensions(frames: list[Frame]) -> int:
    """How many dimension indices every frame has (enhanced multi-frame only)."""
    return min(len(frame.keys.dimensions) for frame in frames)


def _grouped(frames: list[Frame], value_of: Callable[[FrameKeys], Hashable]) -> _Groups:
    groups: dict[Hashable, list[int]] = {}
    for index, frame in enumerate(frames):
        groups.setdefault(value_of(frame.keys), []).append(index)
    return [(_shown(value), groups[value]) for value in sorted(groups, key=_sortable)]


def _ranked(frames: list[Frame], places: NDArray[np.intp], name: str) -> _Groups:
    """Group by the rank of a time among the frames of each place; none where a place lacks a frame or a time."""
    values = [getattr(frame.keys, name) for frame in frames]
    counts = np.bincount(places)
    if None in values or counts.min() != counts.max():
        return []
    groups: dict[int, list[int]] = {}
    for place in range(len(counts)):
        members = sorted(np.flatnonzero(places == place).tolist(), key=lambda index: _sortable(values[index]))
        if len({values[index] for index in members}) < len(members):
            return []
        for rank, index in enumerate(members, start=1):
            groups.setdefault(rank, []).append(index)
    return [(str(rank), members) for rank, members in groups.items()]


def _is_clean_split(name: str, groups: _Groups, places: NDArray[np.intp], crowd: int) -> bool:
    """Whether a split sets frames of one place apart, into no more groups than lie at one place.

    The groups must lie at the same places for the most part: two halves of a volume that overlap in a slice are not two
    volumes, unless they are said to be two stacks. An acquisition number or time says little by itself: it must give
    whole stacks.
    """
    if len(groups) > crowd:
        return False
    held = [set(places[members].tolist()) for _, members in groups]
    n_groups_at = Counter(place for own in held for place in own)
    shared = [sum(n_groups_at[place] > 1 for place in own) for own in held]
    if name in _SAID_TO_BE_SEPARATE:
        return sum(shared) > 0
    if name in _WHOLE_STACKS_ONLY:
        return all(len(own) == len(n_groups_at) for own in held)
    return all(2 * n_shared >= len(own) for n_shared, own in zip(shared, held, strict=True))


def _places(frames: list[Frame]) -> NDArray[np.intp]:
    """(n,) which place along the normal each frame lies at, counted from the lowest."""
    normal = frame_normal(frames[0])
    heights = np.array([np.dot(normal, frame.position or (0, 0, 0)) for frame in frames])
    order = np.argsort(heights, kind="stable")
    places = np.empty(len(frames), dtype=np.intp)
    places[order] = np.concatenate(([0], np.cumsum(np.diff(heights[order]) > SAME_PLACE_MM)))
    return places


def _sortable(value: object) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    try:
        return (1, float(value), "")  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return (2, 0.0, str(value))


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "\\".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value if value is not None else "-")


def _set_aside(frames: list[Frame], all_stacks: list[list[Frame]]) -> str | None:
    """Why a stack is not what one would segment; None if it is."""
    image_types = {word.upper() for frame in frames for word in frame.keys.image_type}
    if "LOCALIZER" in image_types:
        return "localizer"
    if all(_is_capture(frame) for frame in frames):
        return "secondary capture"
    if _is_localizer_by_shape(frames, all_stacks):
        return "localizer (few slices in several orientations)"
    if all(frame.keys.image_type[:1] == ("DERIVED",) for frame in frames):
        return "derived"
    return None


def _is_localizer_by_shape(frames: list[Frame], all_stacks: list[list[Frame]]) -> bool:
    placed = [group for group in all_stacks if _is_placed(group[0])]
    if not _is_placed(frames[0]):
        return False
    normal = frame_normal(frames[0])
    others = [group for group in placed if abs(float(np.dot(frame_normal(group[0]), normal))) < 1 - 1e-2]
    if not others:
        return False
    largest = max(len(group) for group in placed)
    return largest <= _FEW_SLICES or (len(frames) <= _FRAGMENT_SLICES < largest and len(frames) * 4 <= largest)
