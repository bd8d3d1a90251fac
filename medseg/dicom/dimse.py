"""An archive without DICOMweb: C-FIND finds, C-MOVE has series sent to us, C-STORE stores."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelMove,
)

from medseg.dicom.pacs import PacsAddress, PacsQuery, RemoteSeries, file_name, only_uid
from medseg.dicom.pacs_access import Secrets
from medseg.dicom.patience import Patience
from medseg.errors import PacsDenied, PacsError, PacsUnreachable, UsageError

__all__ = ["Dimse"]

_FIND, _MOVE = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelMove
_SUCCESS, _PENDING, _CANNOT_STORE = 0x0000, (0xFF00, 0xFF01), 0xA700
_CONNECT_S, _ANSWER_S = 10.0, 300.0
_receiving_port = threading.Lock()  # a port takes one move at a time: threads that fetch take turns


class Dimse:
    """A DIMSE service, by study root.

    Parameters
    ----------
    address, secrets, patience
        Where it is, certificates, how often it is asked again.
    own_title, receive_port
        Who we are to it, and where it sends what it is asked to move to us.
    """

    def __init__(
        self, address: PacsAddress, secrets: Secrets, patience: Patience, own_title: str, receive_port: int
    ) -> None:
        if secrets.has_any:
            raise UsageError(f"{address.text}: passwords are for DICOMweb; a DIMSE service knows certificates")
        self._address = address
        self._patience = patience
        self._own_title, self._receive_port = own_title, receive_port
        self._secrets = secrets
        self._tls = (secrets.tls(), address.host) if address.is_encrypted else None

    def find(self, query: PacsQuery) -> list[RemoteSeries]:
        """The series that a query names, by study and series UID."""
        studies = dict.fromkeys(
            record.get("StudyInstanceUID") for keys in _study_keys(query) for record in self._ask_find(keys)
        )
        found = [series for study in studies for series in self._series(only_uid(study), query.modality)]
        return sorted(filter(query.takes, found), key=lambda series: (series.study_uid, series.series_uid))

    def instances(self, study_uid: str, series_uid: str) -> tuple[str, ...]:
        """The SOP instance UIDs of a series, sorted; () if there is no such series."""
        keys = _keys("IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid, SOPInstanceUID="")
        return tuple(sorted(only_uid(record.get("SOPInstanceUID")) for record in self._ask_find(keys)))

    def fetch(self, series: RemoteSeries, folder: Path) -> int:
        """Have a series sent to us, and keep it in an empty folder as it comes."""
        keys = _keys("SERIES", StudyInstanceUID=series.study_uid, SeriesInstanceUID=series.series_uid)
        return self._patience.run(lambda: self._move(keys, folder))

    def store(self, files: Sequence[Path]) -> None:
        """Store DICOM files of one study, each in its own transfer syntax."""
        datasets = [dcmread(file) for file in files]
        kinds = {(str(d.SOPClassUID), str(d.file_meta.TransferSyntaxUID)) for d in datasets}
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in sorted(kinds)]

        def action() -> None:
            with self._association(contexts) as association:
                for dataset in datasets:
                    self._check(_send(association, dataset), "C-STORE")

        self._patience.run(action)

    def close(self) -> None:
        """End the connection: there is one for each question only."""

    def _series(self, study_uid: str, modality: str) -> list[RemoteSeries]:
        keys = _keys(
            "SERIES",
            StudyInstanceUID=study_uid,
            SeriesInstanceUID="",
            Modality=modality,
            SeriesDescription="",
            NumberOfSeriesRelatedInstances=None,
        )
        return [
            RemoteSeries(
                study_uid,
                only_uid(record.get("SeriesInstanceUID")),
                str(record.get("Modality", "")),
                str(record.get("SeriesDescription", "") or ""),
                None
                if not record.get("NumberOfSeriesRelatedInstances")
                else int(record.NumberOfSeriesRelatedInstances),
            )
            for record in self._ask_find(keys)
        ]

    def _ask_find(self, keys: Dataset) -> list[Dataset]:
        def action() -> list[Dataset]:
            records = []
            with self._association([build_context(_FIND)]) as association:
                for status, record in association.send_c_find(keys, _FIND):
                    if _code(status) in _PENDING and record is not None:
                        records.append(record)
                    else:
                        self._check(status, "C-FIND")
            return records

        return self._patience.run(action)

    def _move(self, keys: Dataset, folder: Path) -> int:
        for earlier in folder.iterdir():  # of an attempt that broke off
            earlier.unlink()
        inbox = _Inbox(folder)
        with (
            _receiving_port,
            self._receiving(inbox),
            self._association([build_context(_MOVE)]) as association,
        ):
            for status, _ in association.send_c_move(keys, self._own_title, _MOVE):
                if _code(status) not in _PENDING:
                    self._check(status, "C-MOVE", "" if inbox.n_files else self._who_moves())
        if inbox.error is not None:
            raise inbox.error
        return inbox.n_files

    @contextmanager
    def _receiving(self, inbox: _Inbox) -> Iterator[None]:
        """Take what the archive sends, and only what it sends to us by our title."""
        receiver = AE(ae_title=self._own_title)
        receiver.require_called_aet = True
        receiver.require_calling_aet = [self._address.title]
        tls = self._secrets.tls_to_receive() if self._address.is_encrypted else None
        for context in AllStoragePresentationContexts:
            receiver.add_supported_context(str(context.abstract_syntax), ALL_TRANSFER_SYNTAXES)
        try:
            server = receiver.start_server(
                ("", self._receive_port), block=False, evt_handlers=[(evt.EVT_C_STORE, inbox.keep)], ssl_context=tls
            )
        except OSError as error:
            raise UsageError(f"port {self._receive_port} cannot receive: {error.strerror}; give another one") from error
        try:
            yield
        finally:
            if server is not None:
                server.shutdown()

    @contextmanager
    def _association(self, contexts: Sequence[Any]) -> Iterator[Association]:
        caller = AE(ae_title=self._own_title)
        caller.acse_timeout = caller.connection_timeout = _CONNECT_S
        caller.dimse_timeout = caller.network_timeout = _ANSWER_S
        association = caller.associate(
            self._address.host,
            self._address.port or 104,
            contexts=list(contexts),
            ae_title=self._address.title,
            tls_args=self._tls,
        )
        if association.is_rejected:
            raise PacsDenied(f"{self._address.text} refuses to speak to {self._own_title}; it must know this title")
        if not association.is_established:
            self._check_tls()
            raise PacsUnreachable(f"{self._address.text} cannot be reached, or breaks the connection off")
        try:
            yield association
        finally:
            association.release()

    def _check_tls(self) -> None:
        """Raise if it is for TLS that there is no association: pynetdicom does not say so."""
        if self._tls is None:
            return
        try:
            with socket.create_connection((self._address.host, self._address.port or 104), _CONNECT_S) as plain:
                self._tls[0].wrap_socket(plain, server_hostname=self._address.host).close()
        except ssl.SSLCertVerificationError as error:
            raise PacsDenied(
                f"{self._address.text}: its certificate is not trusted ({error.verify_message}); ca_file in "
                "--credentials names the authority that signed it"
            ) from error
        except ssl.SSLError as error:
            raise PacsDenied(
                f"{self._address.text}: no TLS with it ({error.reason}); does it speak plain dimse:?"
            ) from error
        except OSError:
            return  # it is not there at all

    def _who_moves(self) -> str:
        return (
            f"; nothing came: it must send to {self._own_title} at this machine's port {self._receive_port}, and call "
            f"itself {self._address.title}"
        )

    def _check(self, status: Dataset, what: str, hint: str = "") -> None:
        """Raise unless an answer says that all went well; a lack of resources may pass."""
        code = _code(status)
        if code is None:
            raise PacsUnreachable(
                f"{self._address.text}: the connection broke during {what}; some archives do that to a title that they "
                f"do not know ({self._own_title}; see --own-title)"
            )
        if 0xA700 <= code <= 0xA7FF:
            raise PacsUnreachable(f"{self._address.text} is out of resources ({what}: 0x{code:04X})")
        if code != _SUCCESS and not (what == "C-STORE" and code >> 12 == 0xB):  # 0xBxxx: stored, with a warning
            comment = f" {status.ErrorComment}" if status.get("ErrorComment") else ""
            raise PacsError(f"{self._address.text}: {what} ended with 0x{code:04X}{comment}{hint}")


class _Inbox:
    """Where what an archive sends is kept, byte for byte."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.n_files = 0
        self.error: OSError | None = None

    def keep(self, event: evt.Event) -> int:
        try:
            (self._folder / file_name(self.n_files)).write_bytes(event.encoded_dataset())
        except OSError as error:  # raised again once the move has ended
            self.error = error
            return _CANNOT_STORE
        self.n_files += 1
        return _SUCCESS


def _send(association: Association, dataset: Dataset) -> Dataset:
    try:
        return association.send_c_store(dataset)
    except (ValueError, RuntimeError) as error:  # the archive takes no object of this kind, or the connection is gone
        raise PacsError(f"C-STORE of a {dataset.get('Modality', 'object')}: {error}") from error


def _code(status: Dataset) -> int | None:
    return int(status.Status) if "Status" in status else None


def _keys(level: str, **values: str | None) -> Dataset:
    keys = Dataset()
    keys.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(keys, keyword, value)
    return keys


def _study_keys(query: PacsQuery) -> list[Dataset]:
    """One question a number of a list."""
    return [
        _keys(
            "STUDY",
            StudyInstanceUID="",
            StudyDate=query.study_date,
            ModalitiesInStudy=query.modality,
            AccessionNumber=number,
        )
        for number in query.accession_numbers or ("",)
    ]
