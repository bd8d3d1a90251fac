"""Within TLS both sides show a certificate that the other trusts, whichever way the scans go."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from medseg.dicom.pacs import PacsQuery
from medseg.dicom.pacs_access import PacsAccess, open_pacs
from medseg.dicom.patience import Patience
from medseg.errors import PacsError
from tests.dicom.certificates import make_certificates
from tests.dicom.orthanc_server import run_in_own_network
from tests.io.dicom_files import write_series

pytestmark = pytest.mark.pacs


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the certificates of an archive and of ours."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, "archive", "us")
    return folder


def test_a_move_within_tls_is_received_within_tls_from_a_trusted_archive_only(
    tmp_path: Path, certificates: Path
) -> None:
    write_series(tmp_path / "in", n_slices=3)
    told = run_in_own_network("tests.dicom.tls_session", tmp_path / "in", certificates, tmp_path)
    assert told["good"] == "3"
    assert told["sent in the clear"].startswith("Pacs")
    assert "client_certificate" in told["nothing of ours"]
    for untrusted in ("no authority", "other name"):
        assert told[untrusted].startswith("PacsDenied")
        assert "certificate is not trusted" in told[untrusted]


class _NoStudies(BaseHTTPRequestHandler):
    """Answers every search with an empty list."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def https_port(certificates: Path) -> Iterator[int]:
    """Where a DICOMweb service without studies answers, on this machine's loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _NoStudies) as server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates / "archive.pem", certificates / "archive.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_https_is_spoken_only_with_a_server_whose_certificate_is_trusted_and_has_its_name(
    tmp_path: Path, certificates: Path, https_port: int
) -> None:
    query = PacsQuery(modality="PT", accession_numbers=("A123",))
    for host, ca_file, is_trusted in (
        ("127.0.0.1", certificates / "ca.pem", True),
        ("127.0.0.1", None, False),
        ("localhost", certificates / "ca.pem", False),
    ):
        address = f"dicomweb:https://{host}:{https_port}/dicom-web"
        secrets = tmp_path / "secrets.yaml"
        secrets.write_text(f"'{address}': {{token: abc{f', ca_file: {ca_file}' if ca_file else ''}}}\n")
        secrets.chmod(0o600)
        pacs = open_pacs(PacsAccess(address, str(secrets), patience=Patience(1)))
        if is_trusted:
            assert pacs.find(query) == []
        else:
            with pytest.raises(PacsError, match="certificate is not trusted") as caught:
                pacs.find(query)
            assert "A123" not in str(caught.value)
        pacs.close()
