"""DICOM Segmentation objects, of any maker, to arrays of labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.utils import iter_pixels

from medseg.core.geometry import Geometry
from medseg.dicom.planes import FramePlane, grid_of_planes, place
from medseg.errors import InvalidLabelMap, UnreadableImage

__all__ = ["ReadLabels", "SEG_CLASSES", "read_seg", "wanted_numbers"]

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_LESION = "52988006"


@dataclass(frozen=True, eq=False)
class ReadLabels:
    """What an object held: (I, J, K) numbers on a grid, and the class name of each number."""

    array: NDArray[np.unsignedinteger]
    geometry: Geometry
    names: dict[int, str]


def read_seg(dataset: Dataset, name: str, like: Geometry | None = None, only: Sequence[str] = ()) -> ReadLabels:
    """The segments of a Segmentation as numbers, on a grid that is given or on its own.

    Parameters
    ----------
    dataset
        The object, with its pixels.
    name
        What messages call it.
    like
        The grid to put it on, in any orientation; None takes the grid of its own frames, from the lowest to the
        highest that is stored.
    only
        Labels of the segments to read; all of them if empty.

    Returns
    -------
    Segment numbers on the grid. A fractional segmentation counts from half of its maximum on.

    Raises
    ------
    InvalidLabelMap
        If it is no segmentation, or two segments share a voxel.
    GridMismatch
        If it does not lie on the given grid.
    InvalidGeometry
        If its frames make no regular grid.
    UnreadableImage
        If a tag that places or numbers its frames is missing, or its pixels cannot be decoded.
    """
    if str(dataset.get("SOPClassUID", "")) not in SEG_CLASSES:
        raise InvalidLabelMap(f"{name} is no DICOM SEG; its SOP class is {dataset.get('SOPClassUID')}")
    try:
        segments = {int(item.SegmentNumber): item for item in dataset.SegmentSequence if int(item.SegmentNumber) > 0}
        names = {number: _class_name(item) for number, item in segments.items()}
        labels = {number: str(item.get("SegmentLabel", "")) for number, item in segments.items()}
        frames = _frames(dataset)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UnreadableImage(f"{name}: a tag of its frames or segments is missing or malformed: {error}") from error
    wanted = wanted_numbers(labels, only, name)
    shape = (int(dataset.Rows), int(dataset.Columns))
    geometry = like or grid_of_planes([plane for plane, _ in frames], shape, name)
    array = np.zeros(geometry.shape, dtype=np.uint16)
    n_shared = 0
    for (plane, number), pixels in zip(frames, _pixels(dataset, name), strict=True):
        rows, columns = np.nonzero(pixels)
        where = place(plane, rows, columns, geometry, name)
        values = pixels[rows, columns] if number is None else np.full(rows.size, number)
        is_wanted = np.isin(values, wanted)
        where, values = tuple(indices[is_wanted] for indices in where), values[is_wanted]
        n_shared += int(((array[where] != 0) & (array[where] != values)).sum())
        array[where] = values
    if n_shared:
        raise InvalidLabelMap(
            f"{name}: its segments share {n_shared} voxels; a lesion map has one owner a voxel. Name those to read "
            f"(--roi NAME); there are {', '.join(map(repr, list(labels.values())[:8]))}"
        )
    return ReadLabels(array, geometry, {number: names[number] for number in wanted})


def wanted_numbers(labels: Mapping[int, str], only: Sequence[str], name: str) -> list[int]:
    """The numbers of the segments or regions that go by these labels, all of them if none is given.

    Raises
    ------
    InvalidLabelMap
        If a label is not there.
    """
    missing = sorted(set(only) - set(labels.values()))
    if missing:
        there = ", ".join(map(repr, list(labels.values())[:20]))
        raise InvalidLabelMap(f"{name} has no segment or region {', '.join(map(repr, missing))}; there are {there}")
    return [number for number, label in labels.items() if not only or label in only]


def _frames(dataset: Dataset) -> list[tuple[FramePlane, int | None]]:
    """Plane and segment of each frame; the segment is None where the pixels hold the numbers."""
    shared = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    is_labelmap = dataset.get("SegmentationType") == "LABELMAP"
    return [
        (_plane(groups, shared[0]), None if is_labelmap else _segment_number(groups, shared[0]))
        for groups in dataset.PerFrameFunctionalGroupsSequence
    ]


def _group(groups: Dataset, shared: Dataset, keyword: str) -> Dataset:
    found = groups.get(keyword) or shared.get(keyword)
    if not found:
        raise KeyError(keyword)
    first: Dataset = found[0]
    return first


def _segment_number(groups: Dataset, shared: Dataset) -> int:
    return int(_group(groups, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)


def _plane(groups: Dataset, shared: Dataset) -> FramePlane:
    measures = _group(groups, shared, "PixelMeasuresSequence")
    rows, columns = (float(value) for value in measures.PixelSpacing)
    thickness, step = measures.get("SliceThickness"), measures.get("SpacingBetweenSlices")
    return FramePlane(
        np.array(_group(groups, shared, "PlanePositionSequence").ImagePositionPatient, dtype=np.float64),
        np.array(_group(groups, shared, "PlaneOrientationSequence").ImageOrientationPatient, dtype=np.float64),
        (rows, columns),
        thickness_mm=float(thickness) if thickness else None,
        step_mm=float(step) if step else None,
    )


def _class_name(segment: Dataset) -> str:
    """What medseg wrote, or else the coded type of the segment."""
    label, description = str(segment.get("SegmentLabel", "")), str(segment.get("SegmentDescription", ""))
    if description.startswith(f"{label}, "):
        return description.removeprefix(f"{label}, ")
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    return "lesion" if kind.get("CodeValue") == _LESION else str(kind.CodeMeaning).lower()


def _pixels(dataset: Dataset, name: str) -> Iterator[NDArray[Any]]:
    """(rows, columns) of each frame: 0 and 1, or numbers; fractions are cut at half of their maximum."""
    kind = str(dataset.get("SegmentationType", "BINARY"))
    threshold = (int(dataset.get("MaximumFractionalValue", 255)) + 1) // 2 if kind == "FRACTIONAL" else 1
    try:
        for pixels in _bits(dataset) if dataset.BitsAllocated == 1 else iter_pixels(dataset, raw=True):
            yield pixels if kind == "LABELMAP" else pixels >= threshold
    except Exception as error:  # codecs raise almost anything
        raise UnreadableImage(f"{name}: the pixels cannot be read: {error}") from error


def _bits(dataset: Dataset) -> Iterator[NDArray[np.uint8]]:
    """Frames of one bit a pixel: packed without a gap between frames, the lowest bit first."""
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        yield from iter_pixels(dataset, raw=True)
        return
    packed = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    size = int(dataset.Rows) * int(dataset.Columns)
    n_frames = int(dataset.get("NumberOfFrames", 1))
    if packed.size * 8 < size * n_frames:
        raise ValueError(f"{packed.size} bytes; {n_frames} frames of {size} pixels need {-(-size * n_frames // 8)}")
    for number in range(n_frames):
        first, last = number * size, (number + 1) * size
        bits = np.unpackbits(packed[first // 8 : -(-last // 8)], bitorder="little")
        yield bits[first % 8 : first % 8 + size].reshape(int(dataset.Rows), int(dataset.Columns))
