"""What a picture archive (PACS) is to medseg: an address, a query, series, and five things that can be asked of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from medseg.errors import PacsError, UsageError

__all__ = [
    "NOT_IMAGES",
    "Pacs",
    "PacsAddress",
    "PacsQuery",
    "RemoteSeries",
    "TITLE",
    "file_name",
    "only_uid",
    "store_missing",
]

NOT_IMAGES = frozenset(
    {
        *("AU", "DOC", "ECG", "KO", "M3D", "PLAN", "PR", "REG", "RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT", "RWV"),
        *("SEG", "SR"),
    }
)
"""Modalities of objects without voxels to segment."""

TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
"""An application entity title: PS3.5, value representation AE."""
_DIMSE = re.compile(
    rf"(?P<tls>tls:)?(?P<title>{TITLE.pattern})@(?P<host>[^@:/\s]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{{1,5}})"
)
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class PacsAddress:
    """Where an archive is, and how it is spoken to.

    Parameters
    ----------
    text
        As it was written.
    kind
        "dicomweb" or "dimse".
    host
        Name or number of the machine.
    port
        None for the protocol's own.
    url
        Of a DICOMweb service.
    title
        The archive's application entity title, of a DIMSE service.
    is_encrypted
        Whether TLS is used.
    """

    text: str
    kind: str
    host: str
    port: int | None
    url: str = ""
    title: str = ""
    is_encrypted: bool = False

    @classmethod
    def parse(cls, text: str) -> PacsAddress:
        """An address from "dicomweb:URL", "dimse:TITLE@HOST:PORT" or "dimse:tls:TITLE@HOST:PORT".

        Raises
        ------
        UsageError
            If it is none of these, or holds a password.

        Examples
        --------
        >>> PacsAddress.parse("dicomweb:https://pacs.example.org/dicom-web").is_encrypted
        True
        >>> PacsAddress.parse("dimse:ORTHANC@127.0.0.1:4242").title
        'ORTHANC'
        """
        kind, _, rest = text.partition(":")
        if kind == "dicomweb":
            return cls._web(text, rest)
        match = _DIMSE.fullmatch(rest) if kind == "dimse" else None
        if match is None or not 0 < int(match["port"]) < 65536:
            raise UsageError(
                f"{_without_password(text)!r} is no address of a PACS; write dicomweb:https://HOST/PATH, "
                "dimse:TITLE@HOST:PORT or dimse:tls:TITLE@HOST:PORT"
            )
        host = match["host"].strip("[]")
        return cls(text, kind, host, int(match["port"]), title=match["title"], is_encrypted=match["tls"] is not None)

    @classmethod
    def _web(cls, text: str, url: str) -> PacsAddress:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise UsageError(
                f"{_without_password(text)!r} holds a user or password, which everyone on this machine could read; put "
                "them into a file or the keyring (--credentials)"
            )
        try:
            port = parts.port
        except ValueError as error:
            raise UsageError(f"{text!r}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UsageError(f"{text!r} is no address of a DICOMweb service; write dicomweb:https://HOST/PATH")
        return cls(text, "dicomweb", parts.hostname, port, url=url.rstrip("/"), is_encrypted=parts.scheme == "https")

    @property
    def is_on_this_machine(self) -> bool:
        """Whether what is sent there does not leave the machine."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


@dataclass(frozen=True)
class PacsQuery:
    """Which series of an archive.

    Parameters
    ----------
    modality
        As "PT"; empty for all.
    study_date
        "20240131", or a range "20240101-20240131", open at either end; empty for all.
    description
        Of the series, where * and ? stand for anything, in small or capital letters; empty for all.
    accession_numbers
        Of the studies; empty for all.

    Raises
    ------
    UsageError
        If it asks for everything that the archive holds, or the date is malformed.
    """

    modality: str = ""
    study_date: str = ""
    description: str = ""
    accession_numbers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.modality or self.study_date or self.description or self.accession_numbers):
            raise UsageError(
                "a query for everything that a PACS holds; narrow it with --modality, --study-date, "
                "--series-description or --accession"
            )
        if self.study_date and not re.fullmatch(r"\d{8}|\d{8}-(\d{8})?|-\d{8}", self.study_date):
            raise UsageError(f"a study date is 20240131 or a range such as 20240101-20240131; got {self.study_date!r}")

    def __str__(self) -> str:
        """What is asked for, in words; accession numbers are counted, not told."""
        n = len(self.accession_numbers)
        asked = {
            f"modality {self.modality}": self.modality,
            f"study date {self.study_date}": self.study_date,
            f"description {self.description!r}": self.description,
            f"one of {n} accession number(s)": n,
        }
        return ", ".join(words for words, is_asked in asked.items() if is_asked)

    def takes(self, series: RemoteSeries) -> bool:
        """Whether a series is wanted, as far as its own record tells; archives differ in what they match."""
        if series.modality in NOT_IMAGES or (self.modality and series.modality != self.modality):
            return False
        return not self.description or fnmatchcase(series.description.casefold(), self.description.casefold())


@dataclass(frozen=True)
class RemoteSeries:
    """A series in an archive, as its answer to a query describes it."""

    study_uid: str
    series_uid: str
    modality: str = ""
    description: str = ""
    n_instances: int | None = None


class Pacs(Protocol):
    """An archive that was opened; one thread uses it."""

    def find(self, query: PacsQuery) -> list[RemoteSeries]:
        """The series that a query names, by study and series UID."""

    def instances(self, study_uid: str, series_uid: str) -> tuple[str, ...]:
        """The SOP instance UIDs of a series, sorted; () if there is no such series."""

    def fetch(self, series: RemoteSeries, folder: Path) -> int:
        """Fetch a series into an empty folder, one file an instance; how many."""

    def store(self, files: Sequence[Path]) -> None:
        """Store DICOM files of one study."""

    def close(self) -> None:
        """End the connection."""


def store_missing(pacs: Pacs, files: Sequence[Path]) -> int:
    """Store those files whose instances the archive does not hold, so that storing twice changes nothing.

    Returns
    -------
    How many were stored.

    Raises
    ------
    PacsError
        If the archive does not take them.
    """
    from pydicom import dcmread

    wanted: dict[tuple[str, str], dict[str, Path]] = {}
    for file in files:
        header = dcmread(file, stop_before_pixels=True)
        place = (str(header.StudyInstanceUID), str(header.SeriesInstanceUID))
        wanted.setdefault(place, {})[str(header.SOPInstanceUID)] = file
    missing: dict[str, list[Path]] = {}
    for (study, series), by_uid in wanted.items():
        held = set(pacs.instances(study, series))
        missing.setdefault(study, []).extend(file for uid, file in by_uid.items() if uid not in held)
    for batch in missing.values():
        if batch:
            pacs.store(batch)
    return sum(map(len, missing.values()))


def only_uid(text: object) -> str:
    """A UID as an archive names it.

    Raises
    ------
    PacsError
        If it is none; it becomes part of a path.
    """
    uid = str(text)
    if not _UID.fullmatch(uid) or ".." in uid:
        raise PacsError(f"the PACS names something by {uid[:80]!r}, which is no UID")
    return uid


def file_name(number: int) -> str:
    """The name of a fetched file."""
    return f"{number:06d}.dcm"


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@]*@", "//...@", text)
