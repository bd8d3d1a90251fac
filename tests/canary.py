"""A name planted in the tags of a series, and everything that could give it away, unpacked."""

from __future__ import annotations

import base64
import gzip
import io
import re
from collections.abc import Iterator
from pathlib import Path

CANARY = "CANARY"
NAMING = {
    "PatientName": "CANARY^NAME",
    "PatientID": "CANARYID",
    "OtherPatientNames": "CANARY^OTHER",
    "PatientComments": "CANARY comment",
    "PatientAddress": "CANARY street",
    "ReferringPhysicianName": "CANARY^DOCTOR",
    "OperatorsName": "CANARY^OPERATOR",
    "InstitutionName": "CANARY hospital",
    "AccessionNumber": "CANARYACC",
    "StudyDescription": "CANARY study",
    "SeriesDescription": "CANARY series",
    "StudyID": "CANARYSTUDY",
    "ProtocolName": "CANARY protocol",
    "ImageComments": "CANARY image",
}


def told_of(folder: Path) -> list[str]:
    """Where below a folder the name stands: in names of files, in bytes, packed by gzip, in blocks of pages."""
    found = []
    for path in sorted(folder.rglob("*")):
        if CANARY.lower() in path.relative_to(folder).as_posix().lower():
            found.append(f"name of {path.name}")
        if path.is_file() and any(_is_in(content) for content in _contents(path)):
            found.append(f"content of {path.name}")
    return found


def _is_in(content: bytes) -> bool:
    name = CANARY.lower().encode()
    return name in content.lower() or name in content.lower().replace(b"\0", b"")  # as UTF-16 too


def _contents(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    yield content
    if path.suffix == ".gz":
        yield gzip.decompress(content)
    if path.suffix == ".parquet":
        import pandas as pd

        yield pd.read_parquet(io.BytesIO(content)).to_csv().encode()
    if path.suffix == ".html":
        for block in re.findall(rb"(?:base64,|gzip\"[^>]*>)([A-Za-z0-9+/=]{40,})", content):
            unpacked = base64.b64decode(block)
            yield gzip.decompress(unpacked) if unpacked[:2] == b"\x1f\x8b" else unpacked
