"""Cases that lie in a PACS: found by a query, fetched shortly before they are needed, removed after."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.batch.cases import Case
from medseg.core.scan import Scan
from medseg.dicom.pacs import Pacs, PacsQuery, RemoteSeries
from medseg.dicom.pacs_access import PacsAccess, open_pacs
from medseg.errors import AmbiguousSeries, IncompleteSeries, ScanNotFound, UnreadableImage
from medseg.io.case_ids import dicom_case_id
from medseg.io.discover import ScanAttempt, try_scans

__all__ = ["Fetched", "PacsSource", "RemoteScans", "find_remote_cases"]


@dataclass(frozen=True)
class PacsSource:
    """An archive that is a PACS: how to enter it, and which of its series are meant."""

    access: PacsAccess
    query: PacsQuery


@dataclass(frozen=True, eq=False)
class Fetched:
    """A series on disk.

    Parameters
    ----------
    scan
        The scan; None if the series is one that is not segmented.
    folder
        Where it lies; to be removed by whoever is done with it.
    set_aside
        Why it is not segmented ("localizer", "derived").
    """

    scan: Scan | None
    folder: Path
    set_aside: str = ""


def find_remote_cases(source: PacsSource, salt: str) -> list[Case]:
    """The series that a query names, one case each, by name; nothing is fetched.

    Raises
    ------
    ScanNotFound
        If there are none.
    PacsError
        If the archive refuses, or cannot be reached.
    UsageError
        If the address or the credentials make no sense.
    """
    pacs = open_pacs(source.access)
    try:
        found = pacs.find(source.query)
    finally:
        pacs.close()
    if not found:
        raise ScanNotFound(f"{source.access.address} holds no series of images with {source.query}")
    return sorted((_case(series, salt) for series in found), key=lambda case: case.case_id)


class RemoteScans:
    """Fetches series of one archive; several threads may ask it.

    Parameters
    ----------
    access
        The archive.
    folder
        Where series are kept while they are needed, each in a folder of its own, for its owner only.
    salt, allow_gaps
        As `read_scan`.
    """

    def __init__(self, access: PacsAccess, folder: Path, salt: str, allow_gaps: bool) -> None:
        self._access, self._folder = access.with_own_patience(), folder
        self._salt, self._allow_gaps = salt, allow_gaps
        self._local = threading.local()

    def fingerprint(self, series: RemoteSeries) -> tuple[str, ...]:
        """What tells whether a series is still the same: the SHA-256 over the UIDs of its instances.

        An instance never changes under its UID; that is what the UID says (DICOM PS3.5 section 9).
        """
        uids = self._pacs.instances(series.study_uid, series.series_uid)
        return (hashlib.sha256("\n".join((series.study_uid, series.series_uid, *uids)).encode()).hexdigest(),)

    def fetch(self, case_id: str, series: RemoteSeries) -> Fetched:
        """Fetch a series and read its headers.

        Raises
        ------
        PacsError
            If the archive does not give it.
        IncompleteSeries
            If fewer instances came than the archive holds.
        ScanError
            If it cannot be read.
        OSError
            If it cannot be kept.
        """
        folder = Path(tempfile.mkdtemp(prefix=".tmp-fetch-", dir=self._folder))
        try:
            n_files = self._pacs.fetch(series, folder)
            n_held = len(self._pacs.instances(series.study_uid, series.series_uid))
            if n_files < max(n_held, 1):
                raise IncompleteSeries(f"{case_id}: {n_files} of {n_held} instances came from the PACS; try again")
            attempts = try_scans(folder, self._salt, self._allow_gaps)
            return self._chosen(case_id, folder, attempts)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def give_up(self) -> None:
        """Ask an archive that does not answer no more."""
        self._access.patience.lose()

    def _chosen(self, case_id: str, folder: Path, attempts: Sequence[ScanAttempt]) -> Fetched:
        primary = [attempt for attempt in attempts if attempt.set_aside is None]
        if not attempts:
            raise UnreadableImage(f"{case_id}: the series holds no image")
        if not primary:
            return Fetched(None, folder, attempts[0].set_aside or "")
        if len(primary) > 1:
            raise AmbiguousSeries(
                f"{case_id}: the series holds {len(primary)} volumes; in a folder on disk each is a case"
            )
        (attempt,) = primary
        if attempt.scan is None:
            raise attempt.error or UnreadableImage(f"{case_id} cannot be read")
        return Fetched(replace(attempt.scan, case_id=case_id), folder)

    @property
    def _pacs(self) -> Pacs:
        """The connection of this thread."""
        if not hasattr(self._local, "pacs"):
            self._local.pacs = open_pacs(self._access)
        pacs: Pacs = self._local.pacs
        return pacs


def _case(series: RemoteSeries, salt: str) -> Case:
    case_id = dicom_case_id(salt, series.study_uid, series.series_uid)
    return Case(case_id, case_id, series.series_uid, None, None, series.description, series)
