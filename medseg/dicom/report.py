"""Measurements as a DICOM structured report: TID 1500, one group a lesion, tied to its segment and to the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CoordinatesForMeasurement,
    CoordinatesForMeasurement3D,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    SourceImageForRegion,
    SourceImageForSegmentation,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from highdicom.sr.coding import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage

from medseg.core.lesions import LesionMap
from medseg.core.table import LesionTable, Value
from medseg.dicom.equipment import EQUIPMENT, SOFTWARE_VERSION, finish
from medseg.dicom.source import Algorithm, SourceSeries, carry_over, derived_uid, unnamed_header
from medseg.dicom.terms import SIZES, UPTAKE, MeasurementTerm, class_term, intensity_terms
from medseg.dicom.tracking import content_hash, tracking_identifiers
from medseg.errors import GridMismatch

__all__ = ["measurement_report"]

_SERIES_NUMBER = 9002
_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
_PROCEDURES = {
    "CT": Code("25045-6", "LN", "CT Unspecified body region"),
    "PT": Code("44136-0", "LN", "PET Unspecified body region"),
    "MR": Code("25056-3", "LN", "MR Unspecified body region"),
}
_ANY_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
_DEVICE = Code("121007", "DCM", "Device")
_COUNT = Code("246205007", "SCT", "Quantity")
_LESIONS = Code("{lesions}", "UCUM", "lesions")
_LESION = Code("52988006", "SCT", "Lesion")
_LONG_AXIS = next(term for term in SIZES if term.column == "longest_diameter_mm")
_IN_PLANE_VOXELS = 0.01
_DIGITS = 12  # significant; a decimal string holds 16 characters
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def measurement_report(
    lesions: LesionMap,
    table: LesionTable,
    source: SourceSeries,
    algorithm: Algorithm,
    seg: Dataset | None,
    axes: NDArray[np.float64],
    *,
    is_suv: bool = False,
    units: str | None = None,
) -> Dataset:
    """A structured report on the lesions; for none it says that there are 0.

    Parameters
    ----------
    lesions, table
        The lesions on the grid of the series, and their measurements. Undefined values are left out.
    source, algorithm
        The series, and what found the lesions: the observer.
    seg
        The segmentation of the same lesions; None if there are none.
    axes
        (n, 2, 3) RAS+ millimeters, ends of each longest diameter, see `medseg.lesions.long_axis.long_axes`.
    is_suv, units
        What the intensities of the table are in, see `medseg.dicom.terms.intensity_terms`.

    Returns
    -------
    A Comprehensive 3D SR, ready to be written. The same input always gives the same object.

    Raises
    ------
    GridMismatch
        If the lesions lie on another grid than the series, or the table has another number of rows.
    """
    if not source.geometry.matches(lesions.geometry) or len(table) != lesions.n_lesions:
        raise GridMismatch(f"{lesions!r} and {table!r} do not describe the lesions of {source.geometry!r}")
    terms = (*SIZES, *intensity_terms(source.modality, is_suv=is_suv, units=units), *(UPTAKE if is_suv else ()))
    rows = [{name: value for name, value in row.items() if name != "case_id"} for row in table.rows]  # salted anew
    content = derived_uid("report", content_hash(lesions.array, source, algorithm), str(lesions.lesions), str(rows))
    tracking = tracking_identifiers(lesions, source, algorithm)
    # Only for none: viewers stumble over a group without coordinates, and otherwise the groups are the count.
    groups: list[Any] = [] if lesions.n_lesions else [_count(0, content, algorithm)]
    if seg is not None:
        slices = _slices_of_lesions(lesions)
        for number, (lesion, row) in enumerate(zip(lesions.lesions, table.rows, strict=True), start=1):
            identifier = TrackingIdentifier(uid=tracking[number - 1][1], identifier=tracking[number - 1][0])
            segment = _segment(number, seg, source, slices[number - 1])
            groups.append(_group(identifier, lesion.class_name, row, terms, segment, algorithm))
            groups.append(_long_axis(identifier, lesion.class_name, row, axes[number - 1], source, algorithm))
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(algorithm)),
        procedure_reported=_PROCEDURES.get(source.modality, _ANY_PROCEDURE),
        imaging_measurements=groups,
        title=_TITLE,
    )
    dataset = hd.sr.Comprehensive3DSR(
        evidence=[*_evidence(source), *([] if seg is None else [seg])],
        content=report[0],
        series_instance_uid=derived_uid("series", content),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=derived_uid("instance", content),
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        content_date=source.content_date,
        content_time=source.content_time,
        series_description="medseg lesion measurements",
        specific_character_set="ISO_IR 192",
        **EQUIPMENT,
    )
    _name_true_classes(dataset, source)
    carry_over(dataset, source)
    finish(dataset, content)
    return dataset


def _observer(algorithm: Algorithm) -> ObserverContext:
    """The device that observed: the algorithm, its version, and the hash of its weights as serial number."""
    weights = next((text.split(": ", 1)[1] for text in algorithm.parameters if text.startswith("weights")), None)
    return ObserverContext(
        observer_type=CodedConcept.from_code(_DEVICE),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derived_uid("observer", str(algorithm)),
            name=f"{algorithm.name} {algorithm.version}",
            manufacturer_name=EQUIPMENT["manufacturer"],
            model_name=f"medseg {SOFTWARE_VERSION}",
            serial_number=weights,
        ),
    )


def _identification(algorithm: Algorithm) -> AlgorithmIdentification:
    return AlgorithmIdentification(
        name=algorithm.name, version=algorithm.version, parameters=list(algorithm.parameters) or None
    )


def _count(n_lesions: int, content: str, algorithm: Algorithm) -> MeasurementsAndQualitativeEvaluations:
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=derived_uid("count", content), identifier="All lesions"),
        finding_type=_LESION,
        algorithm_id=_identification(algorithm),
        measurements=[Measurement(name=_COUNT, value=n_lesions, unit=_LESIONS)],
    )


def _group(
    identifier: TrackingIdentifier,
    class_name: str,
    row: Mapping[str, Value],
    terms: Sequence[MeasurementTerm],
    segment: ReferencedSegment,
    algorithm: Algorithm,
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """What was measured on the segment of a lesion (TID 1411)."""
    term = class_term(class_name)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=identifier,
        referenced_segment=segment,
        finding_category=term.category,
        finding_type=term.type,
        algorithm_id=_identification(algorithm),
        measurements=[_measurement(t, row[t.column]) for t in terms if row.get(t.column) is not None],
    )


def _long_axis(
    identifier: TrackingIdentifier,
    class_name: str,
    row: Mapping[str, Value],
    ends: NDArray[np.float64],
    source: SourceSeries,
    algorithm: Algorithm,
) -> MeasurementsAndQualitativeEvaluations:
    """The line of the longest diameter (TID 1501); measurements on segments may not carry coordinates."""
    line = CoordinatesForMeasurement3D(
        graphic_type=hd.sr.GraphicTypeValues3D.POLYLINE,
        graphic_data=ends * _RAS_TO_LPS,
        frame_of_reference_uid=source.frame_of_reference_uid,
    )
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=identifier,
        finding_type=class_term(class_name).type,
        algorithm_id=_identification(algorithm),
        measurements=[_measurement(_LONG_AXIS, row[_LONG_AXIS.column], [*_in_image(ends, source), line])],
    )


def _in_image(ends: NDArray[np.float64], source: SourceSeries) -> list[CoordinatesForMeasurement]:
    """The line in pixels of the image that it lies in, if it lies in one: what viewers draw that know no 3-D lines."""
    voxels = source.geometry.to_voxel(ends)
    k = round(float(voxels[0, 2]))
    reference = source.slices[k] if 0 <= k < len(source.slices) else None
    if reference is None or float(np.abs(voxels[:, 2] - k).max()) > _IN_PLANE_VOXELS:
        return []
    image = SourceImageForRegion(
        reference.sop_class_uid, reference.instance_uid, None if reference.frame is None else [reference.frame]
    )
    pixels = np.clip(voxels[:, :2] + 0.5, 0.0, source.geometry.shape[:2])  # (0, 0) is the corner of the first pixel
    return [CoordinatesForMeasurement(hd.sr.GraphicTypeValues.POLYLINE, pixels, image)]


def _measurement(
    term: MeasurementTerm,
    value: Value,
    coordinates: Sequence[CoordinatesForMeasurement | CoordinatesForMeasurement3D] | None = None,
) -> Measurement:
    return Measurement(
        name=CodedConcept.from_code(term.name),
        value=float(f"{float(value or 0.0):.{_DIGITS}g}"),
        unit=CodedConcept.from_code(term.unit),
        derivation=None if term.derivation is None else CodedConcept.from_code(term.derivation),
        referenced_coordinates=coordinates,
    )


def _segment(number: int, seg: Dataset, source: SourceSeries, slices: list[int]) -> ReferencedSegment:
    """The segment, with the images that it was drawn on; the series where all of its slices were interpolated."""
    frames: dict[tuple[str, str], list[int]] = {}
    for k in slices:
        reference = source.slices[k]
        if reference is not None:
            numbers = frames.setdefault((reference.sop_class_uid, reference.instance_uid), [])
            numbers += [] if reference.frame is None else [reference.frame]
    images = [SourceImageForSegmentation(c, uid, numbers or None) for (c, uid), numbers in frames.items()]
    series = None if images else SourceSeriesForSegmentation(referenced_series_instance_uid=source.series_uid)
    return ReferencedSegment(
        sop_class_uid=seg.SOPClassUID,
        sop_instance_uid=seg.SOPInstanceUID,
        segment_number=number,
        source_images=images or None,
        source_series=series,
    )


def _slices_of_lesions(lesions: LesionMap) -> list[list[int]]:
    """The slices (third axis) that each lesion is in."""
    numbers, n_slices = lesions.array, lesions.geometry.shape[2]
    where = np.nonzero(numbers)
    keys = np.unique(numbers[where].astype(np.int64) * n_slices + where[2])
    slices: list[list[int]] = [[] for _ in range(lesions.n_lesions)]
    for key in keys.tolist():
        slices[key // n_slices - 1].append(key % n_slices)
    return slices


def _evidence(source: SourceSeries) -> list[Dataset]:
    """The images, as plain ones: highdicom knows no private classes. `_name_true_classes` puts that right."""
    images = []
    for reference in source.references:
        image = unnamed_header(source)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, reference.instance_uid
        image.StudyInstanceUID, image.SeriesInstanceUID = source.study_uid, source.series_uid
        images.append(image)
    return images


def _name_true_classes(dataset: Dataset, source: SourceSeries) -> None:
    classes = {reference.instance_uid: reference.sop_class_uid for reference in source.references}
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in dataset.get(keyword) or []:
            for series in study.ReferencedSeriesSequence:
                for item in series.ReferencedSOPSequence:
                    known = classes.get(str(item.ReferencedSOPInstanceUID))
                    item.ReferencedSOPClassUID = known or item.ReferencedSOPClassUID
