"""DICOM Segmentation objects: one segment a lesion, or one a class of the semantic map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from medseg.core.lesions import LesionMap
from medseg.core.semantic import SemanticMap
from medseg.dicom.equipment import EQUIPMENT, finish
from medseg.dicom.source import Algorithm, SourceSeries, carry_over, derived_uid, point_to_source, stand_ins
from medseg.dicom.terms import class_term
from medseg.dicom.tracking import content_hash, tracking_identifiers
from medseg.errors import GridMismatch, InvalidLabelMap

__all__ = ["SegKind", "lesion_seg", "semantic_seg"]

SegKind = Literal["binary", "labelmap"]

_MOST_SEGMENTS = 65535
_FAMILY = Code("123109", "DCM", "Manual Processing"), Code("123110", "DCM", "Artificial Intelligence")
_SERIES_NUMBERS = {"lesions": 9001, "semantic": 9003}


@dataclass(frozen=True)
class _Segment:
    """One segment before it is encoded."""

    label: str
    class_name: str
    color: tuple[int, int, int]
    tracking: tuple[str, str] | None = None


def lesion_seg(
    lesions: LesionMap,
    source: SourceSeries,
    algorithm: Algorithm,
    colors: Sequence[tuple[int, int, int]],
    kind: SegKind = "binary",
) -> Dataset:
    """A segmentation with one segment a lesion, in the order of their numbers.

    Parameters
    ----------
    lesions
        On the grid of the series; at least one lesion.
    source
        The series.
    algorithm
        What found them.
    colors
        (R, G, B) 0..255 of lesion 1, 2, ...; repeated where there are more lesions.
    kind
        "binary": one frame a lesion and slice, which every viewer and archive takes; "labelmap": one frame a slice,
        compressed, which only recent ones take (DICOM supplement 243).

    Returns
    -------
    The object, ready to be written. The same input always gives the same object.

    Raises
    ------
    InvalidLabelMap
        If there is no lesion (a segmentation without segments is invalid), or more than 65,535.
    GridMismatch
        If the lesions lie on another grid than the series.
    """
    tracking = tracking_identifiers(lesions, source, algorithm)
    segments = [
        _Segment(f"Lesion {number}", lesion.class_name, colors[(number - 1) % len(colors)], tracking[number - 1])
        for number, lesion in enumerate(lesions.lesions, start=1)
    ]
    _check(lesions.geometry, source, len(segments), "lesion")
    return _segmentation(lesions.array, segments, source, algorithm, kind, "lesions")


def semantic_seg(
    semantic: SemanticMap,
    source: SourceSeries,
    algorithm: Algorithm,
    colors: Sequence[tuple[int, int, int]],
    kind: SegKind = "binary",
) -> Dataset:
    """A segmentation with one segment for each class that the map holds; see `lesion_seg`.

    Raises
    ------
    InvalidLabelMap
        If the map is all background.
    GridMismatch
        If it lies on another grid than the series.
    """
    present = (np.flatnonzero(np.bincount(semantic.array.ravel(), minlength=1)[1:]) + 1).tolist()
    _check(semantic.geometry, source, len(present), "class")
    names: Mapping[int, str] = semantic.scheme.classes
    renumber = np.zeros(max(present) + 1, dtype=np.uint16)
    renumber[present] = np.arange(1, len(present) + 1)
    segments = [_Segment(names[number], names[number], colors[n % len(colors)]) for n, number in enumerate(present)]
    return _segmentation(renumber[semantic.array], segments, source, algorithm, kind, "semantic")


def _check(geometry: Any, source: SourceSeries, n_segments: int, what: str) -> None:
    if not source.geometry.matches(geometry):
        raise GridMismatch(f"the {what} map lies on {geometry!r}, the series on {source.geometry!r}")
    if not 1 <= n_segments <= _MOST_SEGMENTS:
        raise InvalidLabelMap(f"a DICOM SEG holds 1 to {_MOST_SEGMENTS} segments; the {what} map has {n_segments}")


def _segmentation(
    array: NDArray[Any],
    segments: Sequence[_Segment],
    source: SourceSeries,
    algorithm: Algorithm,
    kind: SegKind,
    what: str,
) -> Dataset:
    filled = np.flatnonzero(array.any(axis=(0, 1))).tolist()
    frames = np.ascontiguousarray(array[:, :, filled].transpose(2, 1, 0))
    labels = str([(segment.label, segment.class_name) for segment in segments])
    content = derived_uid(what, kind, content_hash(array, source, algorithm), labels)
    seg = hd.seg.Segmentation(
        source_images=stand_ins(source, filled),
        pixel_array=frames.astype(np.uint8 if len(segments) < 256 else np.uint16, copy=False),
        segmentation_type=hd.seg.SegmentationTypeValues[kind.upper()],
        segment_descriptions=_descriptions(segments, algorithm),
        series_instance_uid=derived_uid("series", content),
        series_number=_SERIES_NUMBERS[what],
        sop_instance_uid=derived_uid("instance", content),
        instance_number=1,
        content_label="LESIONS" if what == "lesions" else "CLASSES",
        content_description=f"medseg {what}",
        content_creator_name=None,
        content_date=source.content_date,
        content_time=source.content_time,
        series_description=f"medseg {what}",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set="ISO_IR 192",
        **EQUIPMENT,
    )
    point_to_source(seg, source)
    carry_over(seg, source)
    if kind == "labelmap":
        # by name: GDCM's encoder, which would come first, ends the process on small frames
        seg.compress(RLELossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    finish(seg, content)
    return seg


def _descriptions(segments: Sequence[_Segment], algorithm: Algorithm) -> list[hd.seg.SegmentDescription]:
    kind = hd.seg.SegmentAlgorithmTypeValues
    identification = hd.AlgorithmIdentificationSequence(
        name=algorithm.name[:64],
        family=_FAMILY[algorithm.is_automatic],
        version=algorithm.version[:64],
        parameters=dict(parameter.split(": ", 1) for parameter in algorithm.parameters) or None,
    )
    descriptions = []
    for number, segment in enumerate(segments, start=1):
        term = class_term(segment.class_name)
        description = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.label[:64],
            segmented_property_category=term.category,
            segmented_property_type=term.type,
            algorithm_type=kind.AUTOMATIC if algorithm.is_automatic else kind.SEMIAUTOMATIC,
            algorithm_identification=identification,
            tracking_id=segment.tracking[0] if segment.tracking else None,
            tracking_uid=segment.tracking[1] if segment.tracking else None,
            display_color=CIELabColor.from_rgb(*segment.color),
        )
        description.SegmentDescription = f"{segment.label}, {segment.class_name}"[:1024]
        descriptions.append(description)
    return descriptions
