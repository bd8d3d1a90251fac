"""What made an object, and what is the same in every object that medseg writes."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID

from medseg.dicom.source import derived_uid

__all__ = ["EQUIPMENT", "IMPLEMENTATION_UID", "SOFTWARE_VERSION", "finish"]

SOFTWARE_VERSION = version("medseg")
IMPLEMENTATION_UID = derived_uid("medseg implementation")

EQUIPMENT: dict[str, Any] = {
    "manufacturer": "medseg",
    "manufacturer_model_name": "medseg",
    "software_versions": SOFTWARE_VERSION,
    "device_serial_number": "none",
}


def finish(dataset: Dataset, content: str) -> None:
    """Take out of an object what differs between two runs: the time of its making, and random UIDs."""
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        if keyword in dataset:
            delattr(dataset, keyword)
    for item in dataset.get("ContributingEquipmentSequence") or []:
        item.pop("ContributionDateTime", None)
    if "DimensionOrganizationSequence" in dataset:
        uid = derived_uid("dimensions", content)
        dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
        for item in dataset.DimensionIndexSequence:
            item.DimensionOrganizationUID = uid
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    dataset.file_meta.ImplementationVersionName = f"medseg {SOFTWARE_VERSION}"[:16]
