"""An archive that speaks DICOMweb: QIDO-RS finds, WADO-RS fetches, STOW-RS stores."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom import dcmread
from requests.adapters import HTTPAdapter

from medseg.dicom.pacs import PacsAddress, PacsQuery, RemoteSeries, file_name, only_uid
from medseg.dicom.pacs_access import Secrets
from medseg.dicom.patience import Patience
from medseg.errors import PacsDenied, PacsError, PacsUnreachable

__all__ = ["DicomWeb"]

T = TypeVar("T")

_PASSING = {408, 425, 429, 500, 502, 503, 504}
_HINTS = {
    401: " (who are you?): user, password or token are missing or wrong; see --credentials",
    403: " (forbidden): it knows the user, who may not do this",
    404: " (not found): is the path of the address right, and the series still there?",
}
_PAGE = 500
_TIMEOUT_S = (10.0, 300.0)  # to connect; between two pieces of an answer
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_MODALITY, _DESCRIPTION, _N_INSTANCES = "00080060", "0008103E", "00201209"
_FAILED, _REASON = "FailedSOPSequence", "FailureReason"


class DicomWeb:
    """A DICOMweb service.

    Parameters
    ----------
    address, secrets, patience
        Where it is, what it wants to know of us, how often it is asked again.
    """

    def __init__(self, address: PacsAddress, secrets: Secrets, patience: Patience) -> None:
        self._name = address.text
        self._patience = patience
        self._session = requests.Session()
        if address.is_encrypted:
            self._session.mount("https://", _Encrypted(secrets))
        if secrets.token:
            self._session.headers["Authorization"] = f"Bearer {secrets.token}"
        elif secrets.password:
            self._session.auth = (secrets.user, secrets.password)
        self._client = DICOMwebClient(address.url, session=self._session, timeout=_TIMEOUT_S)
        self._client.set_http_retry_params(retry=False)  # it would not try again after a broken connection

    def find(self, query: PacsQuery) -> list[RemoteSeries]:
        """The series that a query names, by study and series UID: studies first, for not every server joins levels."""
        studies = dict.fromkeys(
            _text(record, _STUDY) for filters in _study_filters(query) for record in self._studies(filters)
        )
        found = [series for study in studies for series in self._series(only_uid(study), query.modality)]
        return sorted(filter(query.takes, found), key=lambda series: (series.study_uid, series.series_uid))

    def instances(self, study_uid: str, series_uid: str) -> tuple[str, ...]:
        """The SOP instance UIDs of a series, sorted; () if there is no such series."""
        records = self._pages(self._client.search_for_instances, study_uid, series_uid)
        return tuple(sorted(only_uid(_text(record, _INSTANCE)) for record in records))

    def fetch(self, series: RemoteSeries, folder: Path) -> int:
        """Fetch a series into an empty folder, each instance in the transfer syntax in which it is stored."""

        def action() -> int:
            number = 0
            for earlier in folder.iterdir():  # of an attempt that broke off
                earlier.unlink()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom's on values that break the standard: told when they are read
                for dataset in self._client.iter_series(
                    series.study_uid, series.series_uid, media_types=(("application/dicom", "*"),)
                ):
                    dataset.save_as(folder / file_name(number), enforce_file_format=True)
                    number += 1
            return number

        return self._asked(action)

    def store(self, files: Sequence[Path]) -> None:
        """Store DICOM files of one study."""
        datasets = [dcmread(file) for file in files]
        answer = self._asked(lambda: self._client.store_instances(datasets))
        failed = [hex(int(item.get(_REASON, 0))) for item in answer.get(_FAILED, [])]
        if failed:
            raise PacsError(f"{self._name} did not take {len(failed)} of {len(files)} object(s): {', '.join(failed)}")

    def close(self) -> None:
        """End the connection."""
        self._session.close()

    def _studies(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        return self._pages(self._client.search_for_studies, search_filters=filters)

    def _series(self, study_uid: str, modality: str) -> list[RemoteSeries]:
        filters = {"Modality": modality} if modality else {}
        fields = ["Modality", "SeriesDescription", "NumberOfSeriesRelatedInstances"]
        records = self._pages(self._client.search_for_series, study_uid, fields=fields, search_filters=filters)
        return [
            RemoteSeries(
                study_uid,
                only_uid(_text(record, _SERIES)),
                _text(record, _MODALITY),
                _text(record, _DESCRIPTION),
                int(_text(record, _N_INSTANCES)) if _text(record, _N_INSTANCES).isdecimal() else None,
            )
            for record in records
        ]

    def _pages(self, search: Callable[..., list[dict[str, Any]]], *place: str, **what: Any) -> list[dict[str, Any]]:
        """Every record of a search; a server that gives the same page again has no more."""
        records: list[dict[str, Any]] = []
        while True:
            offset = len(records)
            page = self._asked(lambda: search(*place, limit=_PAGE, offset=offset or None, **what))  # noqa: B023
            if not page or (records and page[0] in records):
                return records
            records += page
            if len(page) < _PAGE:
                return records

    def _asked(self, action: Callable[[], T]) -> T:
        return self._patience.run(lambda: self._asked_once(action))

    def _asked_once(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            is_store = error.request is not None and error.request.method == "POST"
            # what is not found may be one series that has gone; a place to store is there for all or for none
            is_denied = status in (401, 403) or (status == 404 and is_store)
            kind = PacsUnreachable if status in _PASSING else PacsDenied if is_denied else PacsError
            raise kind(f"{self._name} answers with status {status}{_HINTS.get(status, '')}") from error
        except requests.exceptions.SSLError as error:
            raise PacsDenied(f"{self._name}: {_tls_problem(error)}") from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise PacsUnreachable(f"{self._name} cannot be reached: {_reason(error)}") from error
        except (requests.RequestException, ValueError, KeyError) as error:  # no answer that the standard knows
            raise PacsError(f"{self._name} answers with what is no DICOMweb: {error}") from error


class _Encrypted(HTTPAdapter):
    """Connections with our own TLS settings."""

    def __init__(self, secrets: Secrets) -> None:
        self._context = secrets.tls()
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As the base class, with the settings."""
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)


def _tls_problem(error: requests.exceptions.SSLError) -> str:
    """Whether the server is not trusted, or speaks something else; the whole message of the error holds the query."""
    reason = str(getattr(error.args[0], "reason", ""))
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return f"its certificate is not trusted ({reason}); ca_file in --credentials names the authority that signed it"
    return f"no TLS with it ({reason}); does it speak http instead of https?"


def _reason(error: requests.RequestException) -> str:
    """Why there is no connection, without the query."""
    text = f"{getattr(error.args[0] if error.args else error, 'reason', error)!r}"
    words = {"NameResolution": "no such host", "refused": "connection refused", "timed out": "no answer in time"}
    return next((said for word, said in words.items() if word in text), type(error).__name__)


def _study_filters(query: PacsQuery) -> list[dict[str, str]]:
    """One search a number of a list; the modality of a study is a list in some archives, and matched by item."""
    filters = {}
    if query.study_date:
        filters["StudyDate"] = query.study_date
    if query.modality:
        filters["ModalitiesInStudy"] = query.modality
    return [filters | {"AccessionNumber": number} for number in query.accession_numbers] or [filters]


def _text(record: dict[str, Any], tag: str) -> str:
    """The first value of an attribute in DICOM JSON, "" if there is none."""
    values = record.get(tag, {}).get("Value") or [""]
    return str(values[0])
