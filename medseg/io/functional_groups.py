"""Functional groups of enhanced multi-frame images: what a frame says itself, else what all frames share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from medseg.io.dicom_headers import number_tag, numbers_tag, tag_value, text_tag, texts_tag

__all__ = ["FrameGroups"]

_FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")
_CONVERTED = "UnassignedPerFrameConvertedAttributesSequence"  # legacy converted enhanced objects


@dataclass(frozen=True, slots=True)
class FrameGroups:
    """The functional groups of one frame, looked up by the name of a macro and of a tag within it."""

    shared: Dataset
    own: Dataset
    path: Path

    def macro(self, sequence: str) -> Dataset:
        """The item of a macro: the frame's own, else the shared one, else an empty one."""
        items = self.items(sequence)
        return items[0] if items else Dataset()

    def items(self, sequence: str) -> list[Dataset]:
        """All items of a macro that may have several: the frame's own, else the shared ones."""
        for groups in (self.own, self.shared):
            items = tag_value(groups, sequence, self.path)
            if items:
                return list(items)
        return []

    def number(self, sequence: str, keyword: str) -> float | None:
        """One number of a macro, or None."""
        return number_tag(self.macro(sequence), keyword, self.path)

    def numbers(self, sequence: str, keyword: str, count: int) -> tuple[float, ...] | None:
        """`count` numbers of a macro, or None."""
        return numbers_tag(self.macro(sequence), keyword, count, self.path)

    def keys(self) -> dict[str, Any]:
        """What can tell two frames of one place apart, by the names of `FrameKeys`; None where it is not said."""
        content, converted, path = self.macro("FrameContentSequence"), self.macro(_CONVERTED), self.path
        diffusion = self.macro("MRDiffusionSequence")
        direction = tag_value(diffusion, "DiffusionGradientDirectionSequence", path) or [Dataset()]
        frame_type = next((item for name in _FRAME_TYPES if (item := self.macro(name))), converted)
        echo_time = number_tag(self.macro("MREchoSequence"), "EffectiveEchoTime", path)
        return {
            "dimensions": tuple(int(part) for part in _listed(tag_value(content, "DimensionIndexValues", path))),
            "stack_id": text_tag(content, "StackID", path) or None,
            "image_type": texts_tag(frame_type, "FrameType", path) or texts_tag(frame_type, "ImageType", path),
            "component": text_tag(frame_type, "ComplexImageComponent", path) or None,
            "echo_time": number_tag(converted, "EchoTime", path) if echo_time is None else echo_time,
            "b_value": number_tag(diffusion, "DiffusionBValue", path),
            "gradient": numbers_tag(direction[0], "DiffusionGradientOrientation", 3, path),
            "temporal_position": number_tag(content, "TemporalPositionIndex", path),
            "kernel": texts_tag(self.macro("CTReconstructionSequence"), "ConvolutionKernel", path),
            "kvp": number_tag(self.macro("CTXRayDetailsSequence"), "KVP", path),
            "acquisition_number": text_tag(content, "FrameAcquisitionNumber", path) or None,
            "trigger_time": self.number("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
            "acquisition_time": text_tag(content, "FrameAcquisitionDateTime", path) or None,
        }


def _listed(value: Any) -> list[Any]:
    """The values of a tag that may hold none, one or many."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, int | str) else list(value)
