"""RT Structure Sets: closed contours a slice, in patient coordinates, and back to voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from medseg.core.geometry import Geometry
from medseg.core.lesions import LesionMap
from medseg.dicom.contours import fill_polygons, trace_outlines
from medseg.dicom.equipment import EQUIPMENT, finish
from medseg.dicom.seg_reader import ReadLabels, wanted_numbers
from medseg.dicom.source import Algorithm, SliceReference, SourceSeries, carry_over, decimal, derived_uid
from medseg.dicom.terms import class_term
from medseg.dicom.tracking import content_hash
from medseg.errors import GridMismatch, InvalidLabelMap, UnreadableImage

__all__ = ["read_rtstruct", "structure_set"]

_SERIES_NUMBER = 9004
_STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"
_OFF_SLICE_VOXELS = 0.1
_MM_DIGITS = 6
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def structure_set(
    lesions: LesionMap, source: SourceSeries, algorithm: Algorithm, colors: Sequence[tuple[int, int, int]]
) -> Dataset:
    """A structure set with one region of interest a lesion.

    Contours run along pixel edges: their area is that of the pixels, and filling them gives the same voxels. Holes are
    joined to their outside by a keyhole.

    Parameters
    ----------
    lesions
        On the grid of the series; at least one lesion.
    source, algorithm, colors
        As for `medseg.dicom.seg.lesion_seg`.

    Returns
    -------
    The object, ready to be written. The same input always gives the same object.

    Raises
    ------
    InvalidLabelMap
        If there is no lesion.
    GridMismatch
        If the lesions lie on another grid than the series.
    """
    if not source.geometry.matches(lesions.geometry):
        raise GridMismatch(f"the lesion map lies on {lesions.geometry!r}, the series on {source.geometry!r}")
    if not lesions.n_lesions:
        raise InvalidLabelMap("a structure set without regions is invalid; the lesion map has no lesion")
    content = derived_uid("rtstruct", content_hash(lesions.array, source, algorithm), str(lesions.lesions))
    dataset = _frame(source, content)
    dataset.StructureSetLabel, dataset.StructureSetName = "LESIONS", "medseg lesions"
    dataset.StructureSetDescription = "; ".join([f"{algorithm.name} {algorithm.version}", *algorithm.parameters])[:1024]
    dataset.StructureSetDate, dataset.StructureSetTime = source.content_date, source.content_time
    dataset.ReferencedFrameOfReferenceSequence = [_referenced_series(source)]
    regions = range(1, lesions.n_lesions + 1)
    dataset.StructureSetROISequence = [_region(n, source, algorithm) for n in regions]
    boxes = _boxes(lesions)
    dataset.ROIContourSequence = [
        _contours(n, lesions.array, boxes[n - 1], source, colors[(n - 1) % len(colors)]) for n in regions
    ]
    dataset.RTROIObservationsSequence = [_observation(n, lesions.lesions[n - 1].class_name) for n in regions]
    finish(dataset, content)
    return dataset


def read_rtstruct(dataset: Dataset, name: str, like: Geometry, only: Sequence[str] = ()) -> ReadLabels:
    """The regions of a structure set as numbers on a grid: a voxel belongs to a region if its center is inside.

    Several contours of one region in one slice count by the parity rule: one inside another is a hole.

    Parameters
    ----------
    dataset
        The object.
    name
        What messages call it.
    like
        The grid; contours must lie in its slices.
    only
        Names of the regions to read; all of them if empty.

    Raises
    ------
    InvalidLabelMap
        If it is no structure set, has no such region, or two regions share a voxel.
    GridMismatch
        If a contour does not lie in a slice of the grid, or beyond it.
    UnreadableImage
        If a tag is missing or malformed.
    """
    if dataset.get("SOPClassUID") != RTStructureSetStorage:
        raise InvalidLabelMap(f"{name} is no RT Structure Set; its SOP class is {dataset.get('SOPClassUID')}")
    try:
        labels = {int(item.ROINumber): str(item.get("ROIName", "")) for item in dataset.StructureSetROISequence}
        classes = _class_names(dataset)
        points = {int(item.ReferencedROINumber): _points(item) for item in dataset.get("ROIContourSequence") or []}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableImage(f"{name}: a tag of its regions is missing or malformed: {str(error)[:200]}") from error
    wanted = wanted_numbers(labels, only, name)
    array = np.zeros(like.shape, dtype=np.uint16)
    n_shared = 0
    for number in wanted:
        for axis, index, mask in _slices(points.get(number, []), like, f"{name}, region {labels[number]!r}"):
            part = np.moveaxis(array, axis, 0)[index]
            n_shared += int((part[mask] != 0).sum())
            part[mask] = number
    if n_shared:
        names = ", ".join(repr(labels[number]) for number in wanted[:8])
        raise InvalidLabelMap(
            f"{name}: its regions share {n_shared} voxels; a lesion map has one owner a voxel. Name those to read "
            f"(--roi NAME); there are {names}"
        )
    return ReadLabels(array, like, {number: classes.get(number, "lesion") for number in wanted})


def _frame(source: SourceSeries, content: str) -> Dataset:
    """Patient, study, series, equipment."""
    dataset = Dataset()
    carry_over(dataset, source)
    dataset.PositionReferenceIndicator = source.header.get("PositionReferenceIndicator", "")
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, derived_uid("instance", content)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = source.study_uid, derived_uid("series", content)
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "RTSTRUCT", _SERIES_NUMBER, 1
    dataset.SeriesDescription, dataset.OperatorsName = "medseg lesions", ""
    dataset.Manufacturer, dataset.ManufacturerModelName = (
        EQUIPMENT["manufacturer"],
        EQUIPMENT["manufacturer_model_name"],
    )
    dataset.SoftwareVersions = EQUIPMENT["software_versions"]
    dataset.FrameOfReferenceUID = source.frame_of_reference_uid
    dataset.ApprovalStatus = "UNAPPROVED"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian  # in explicit VR a contour of more than 64 KB would lose its type
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.file_meta = meta
    return dataset


def _referenced_series(source: SourceSeries) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = source.series_uid
    series.ContourImageSequence = [_image(reference) for reference in source.references]
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY_COMPONENT, source.study_uid
    study.RTReferencedSeriesSequence = [series]
    frame_of_reference = Dataset()
    frame_of_reference.FrameOfReferenceUID = source.frame_of_reference_uid
    frame_of_reference.RTReferencedStudySequence = [study]
    return frame_of_reference


def _image(reference: SliceReference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.instance_uid
    if reference.frame is not None:
        item.ReferencedFrameNumber = reference.frame
    return item


def _region(number: int, source: SourceSeries, algorithm: Algorithm) -> Dataset:
    item = Dataset()
    item.ROINumber, item.ROIName = number, f"Lesion {number}"
    item.ReferencedFrameOfReferenceUID = source.frame_of_reference_uid
    item.ROIGenerationAlgorithm = "AUTOMATIC" if algorithm.is_automatic else "SEMIAUTOMATIC"
    item.ROIGenerationDescription = f"{algorithm.name} {algorithm.version}"[:64]
    return item


def _observation(number: int, class_name: str) -> Dataset:
    term = class_term(class_name)
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = term.type[:3]
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = number
    item.ROIObservationLabel = f"Lesion {number}"[:16]
    item.ROIObservationDescription = class_name[:1024]
    item.RTROIIdentificationCodeSequence = [code]
    item.RTROIInterpretedType, item.ROIInterpreter = "", ""
    return item


def _boxes(lesions: LesionMap) -> list[tuple[slice, ...]]:
    """The box of each lesion."""
    where = np.nonzero(lesions.array)
    numbers = lesions.array[where].astype(np.intp) - 1
    low = np.full((3, lesions.n_lesions), np.iinfo(np.intp).max)
    high = np.zeros((3, lesions.n_lesions), dtype=np.intp)
    for axis, indices in enumerate(where):
        np.minimum.at(low[axis], numbers, indices)
        np.maximum.at(high[axis], numbers, indices + 1)
    return [tuple(slice(int(low[a, n]), int(high[a, n])) for a in range(3)) for n in range(lesions.n_lesions)]


def _contours(
    number: int, array: NDArray[Any], box: tuple[slice, ...], source: SourceSeries, color: tuple[int, int, int]
) -> Dataset:
    region = array[box] == number
    contours = []
    for k in range(region.shape[2]):
        for polygon in trace_outlines(region[:, :, k].T):
            shifted = polygon + np.array([box[0].start, box[1].start])
            contours.append(_contour(shifted, box[2].start + k, source))
    item = Dataset()
    item.ROIDisplayColor = list(color)
    item.ContourSequence = contours
    item.ReferencedROINumber = number
    return item


def _contour(polygon: NDArray[np.float64], k: int, source: SourceSeries) -> Dataset:
    row_spacing, column_spacing = source.pixel_spacing
    cosines = np.reshape(source.orientation, (2, 3))
    lps = np.array(source.positions[k]) + polygon @ (cosines * [[column_spacing], [row_spacing]])
    item = Dataset()
    reference = source.slices[k]
    if reference is not None:
        item.ContourImageSequence = [_image(reference)]
    item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(polygon)
    item.ContourData = [decimal(round(value, _MM_DIGITS)) for value in lps.ravel().tolist()]
    return item


def _class_names(dataset: Dataset) -> dict[int, str]:
    """What medseg wrote of each region's class; others leave it out or write anything."""
    if dataset.get("Manufacturer") != EQUIPMENT["manufacturer"]:
        return {}
    observations = dataset.get("RTROIObservationsSequence") or []
    return {int(item.ReferencedROINumber): str(item.ROIObservationDescription) for item in observations}


def _points(region: Dataset) -> list[NDArray[np.float64]]:
    """(n, 3) LPS millimeters of each closed contour."""
    closed = [item for item in region.get("ContourSequence") or [] if item.ContourGeometricType in _CLOSED]
    return [np.array(_numbers(item.ContourData), dtype=np.float64).reshape(-1, 3) for item in closed]


def _numbers(data: Any) -> Any:
    """What a contour holds; more than 64 KB of it in explicit VR stand there as bytes (UN; PS3.5 section 6.2.2)."""
    return data.decode("ascii").strip("\0 ").split("\\") if isinstance(data, bytes) else data


_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "POINT")


def _slices(
    contours: list[NDArray[np.float64]], geometry: Geometry, name: str
) -> list[tuple[int, int, NDArray[np.bool_]]]:
    """Axis, index and mask of each slice that contours fill."""
    by_slice: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    for points in contours:
        voxels = geometry.to_voxel(points * _LPS_TO_RAS)
        spread = np.ptp(voxels, axis=0)
        axis = int(np.argmin(spread))
        index = round(float(voxels[:, axis].mean()))
        off = max(float(np.abs(voxels[:, axis] - index).max()), 0.0)
        others = np.delete(voxels, axis, axis=1)
        sizes = np.delete(np.array(geometry.shape), axis)
        is_outside = not 0 <= index < geometry.shape[axis] or (others < -1).any() or (others > sizes).any()
        if off > _OFF_SLICE_VOXELS or is_outside:
            why = "beyond the grid" if is_outside else f"{off:.2g} voxels beside the slices"
            raise GridMismatch(f"{name}: a contour lies {why} of {geometry!r}; give the scan that it was drawn on")
        by_slice.setdefault((axis, index), []).append(others[:, ::-1])
    masks = []
    for (axis, index), polygons in by_slice.items():
        rows, columns = (n for other, n in enumerate(geometry.shape) if other != axis)
        masks.append((axis, index, fill_polygons(polygons, (rows, columns))))
    return masks
