"""An archive that speaks DICOM within TLS, and how it is spoken to, in a network namespace of its own.

    unshare -n python -m tests.dicom.tls_session SERIES CERTIFICATES OUT

The archive is pynetdicom's, so that it can be told to send in the clear. Prints what came of each attempt as JSON.
"""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove  # type: ignore[attr-defined]

from medseg.dicom.pacs import RemoteSeries
from medseg.dicom.pacs_access import PacsAccess, open_pacs
from medseg.dicom.patience import Patience
from medseg.errors import MedsegError
from tests.dicom.orthanc_server import DICOM, RECEIVE
from tests.dicom.orthanc_session import bring_loopback_up


def main(series: Path, certificates: Path, out: Path) -> dict[str, str]:
    """Try, and tell."""
    bring_loopback_up()
    files = sorted(series.iterdir())
    ours = {"client_certificate": "us.pem", "client_key": "us.key"}
    return {
        "good": attempt(files, certificates, out, {"ca_file": "ca.pem", **ours}),
        "sent in the clear": attempt(files, certificates, out, {"ca_file": "ca.pem", **ours}, is_sent_by_tls=False),
        "no authority": attempt(files, certificates, out, ours),
        "nothing of ours": attempt(files, certificates, out, {"ca_file": "ca.pem"}),
        "other name": attempt(files, certificates, out, {"ca_file": "ca.pem", **ours}, host="localhost"),
    }


def attempt(
    files: list[Path],
    certificates: Path,
    out: Path,
    names: dict[str, str],
    *,
    is_sent_by_tls: bool = True,
    host: str = "127.0.0.1",
) -> str:
    """Fetch a series; how many files came, or why none."""
    address = f"dimse:tls:ARCHIVE@{host}:{DICOM}"
    entry = {name: str(certificates / file) for name, file in names.items()}
    secrets, inbox = out / "secrets.yaml", out / "inbox"
    secrets.write_text(json.dumps({address: entry}))
    secrets.chmod(0o600)
    inbox.mkdir(exist_ok=True)
    header = dcmread(files[0], stop_before_pixels=True)
    access = PacsAccess(address, str(secrets), receive_port=RECEIVE, patience=Patience(1))
    server = archive(files, certificates, is_sent_by_tls=is_sent_by_tls)
    try:
        return str(open_pacs(access).fetch(RemoteSeries(header.StudyInstanceUID, header.SeriesInstanceUID), inbox))
    except MedsegError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        server.shutdown()
        for file in inbox.iterdir():
            file.unlink()


def archive(files: list[Path], certificates: Path, *, is_sent_by_tls: bool) -> Any:
    """A server that sends these files to whoever asks it to move anything."""

    def tls(purpose: ssl.Purpose) -> ssl.SSLContext:
        context = ssl.create_default_context(purpose, cafile=str(certificates / "ca.pem"))
        context.load_cert_chain(certificates / "archive.pem", certificates / "archive.key")
        return context

    def move(_: evt.Event) -> Iterator[Any]:
        sent = {"tls_args": (tls(ssl.Purpose.SERVER_AUTH), "127.0.0.1")} if is_sent_by_tls else {}
        yield "127.0.0.1", RECEIVE, sent
        yield len(files)
        for file in files:
            yield 0xFF00, dcmread(file)

    entity = AE("ARCHIVE")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    entity.requested_contexts = StoragePresentationContexts
    return entity.start_server(
        ("127.0.0.1", DICOM),
        block=False,
        evt_handlers=[(evt.EVT_C_MOVE, move)],
        ssl_context=tls(ssl.Purpose.CLIENT_AUTH),
    )


if __name__ == "__main__":
    json.dump(main(*map(Path, sys.argv[1:4])), sys.stdout)
