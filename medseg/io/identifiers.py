"""What leads from a result back to the patient's files; read and written only where a user asks for it."""

from __future__ import annotations

from medseg.core.scan import Scan
from medseg.io.dicom_headers import lenient_parsing, read_tags

__all__ = ["read_identifiers"]

_KEYWORDS = {
    "patient_id": "PatientID",
    "accession_number": "AccessionNumber",
    "study_date": "StudyDate",
    "study_instance_uid": "StudyInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
    "frame_of_reference_uid": "FrameOfReferenceUID",
}


def read_identifiers(scan: Scan) -> list[dict[str, str | None]]:
    """One record a channel: its first file, and for DICOM patient ID, accession number, study date and UIDs.

    Names and birth dates are not among them. Handle the result as you handle the scans.

    Raises
    ------
    UnreadableImage
        If a file has become unreadable.
    """
    records: list[dict[str, str | None]] = []
    for files in scan.files:
        record: dict[str, str | None] = {"file": str(files[0].absolute())}
        if scan.format == "dicom":
            tags = read_tags(files[0], list(_KEYWORDS.values()))
            with lenient_parsing():  # values are decoded here
                record |= {name: str(tags.get(keyword) or "") or None for name, keyword in _KEYWORDS.items()}
        records.append(record)
    return records
