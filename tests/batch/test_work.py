"""The cases of one run, with a stand-in for who does them: what becomes of them when a PACS cannot be reached."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from medseg.batch.cases import Case
from medseg.batch.deliver import Destination
from medseg.batch.ledger import Files, Ledger, result_key
from medseg.batch.messages import CaseDone, Outcome, Task
from medseg.batch.remote import RemoteScans
from medseg.batch.work import Work
from medseg.dicom.pacs import RemoteSeries
from medseg.dicom.pacs_access import PacsAccess
from medseg.dicom.patience import Patience
from medseg.errors import PacsDenied, PacsError, PacsUnreachable, UnreadableImage
from medseg.io.hashes import sha256_of_file
from medseg.io.scan import read_scan
from tests.batch.archives import make_archive

MODEL = ("weights", "recipe")


class DoneAtOnce:
    """Workers that have nothing to do."""

    dashboard = ""

    def model(self) -> tuple[str, ...]:
        return MODEL

    def work(
        self, tasks: Iterable[Task | None], on_start: Callable[[Task, int], None]
    ) -> Iterator[tuple[Task, Outcome]]:
        for task in tasks:
            if task is not None:
                on_start(task, 0)
                yield task, CaseDone(("input",), {"result.json": (0, "")}, 1.0)


class Empty(BaseHTTPRequestHandler):
    """A DICOMweb service that answers every search with an empty list."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        pass


def test_a_whole_result_outlives_a_pacs_that_cannot_be_reached(tmp_path: Path) -> None:
    pytest.importorskip("dicomweb_client", reason="no DICOMweb here: pip install 'medseg[pacs]'")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    access = PacsAccess(f"dicomweb:http://127.0.0.1:{server.server_port}/web", patience=Patience(1))
    remote = RemoteScans(access, tmp_path, "salt", allow_gaps=False)
    series = RemoteSeries("1.2", "1.2.3")
    case = Case("a", "a", "1.2.3", None, remote=series)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    (tmp_path / "a").mkdir()
    result = tmp_path / "a" / "result.json"
    result.write_text("{}")
    files: Files = {"result.json": (2, sha256_of_file(result))}
    with Ledger(tmp_path, create=True) as ledger:
        ledger.add([("a", "a", "1.2.3")])
        ledger.set_done("a", result_key(remote.fingerprint(series), MODEL), files, 1.0)

        def run() -> list[Any]:
            events: list[Mapping[str, Any]] = []
            work = Work("pacs", tmp_path, ledger, events.append, remote)
            work.enter([case])
            work.do(DoneAtOnce())
            return [event["event"] for event in events]

        assert run() == ["found", "skipped"]
        server.shutdown()
        thread.join()
        server.socket.close()
        assert run() == ["found", "failed"]
        assert ledger.counts() == {"failed": 1}
        assert result.is_file()
        server = ThreadingHTTPServer(server.server_address, Empty)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert run() == ["found", "skipped"]
        assert ledger.counts() == {"done": 1}
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("kind", [PacsUnreachable, PacsDenied])
def test_a_pacs_that_takes_nothing_ends_the_run_after_three_cases_though_scans_can_be_read(
    tmp_path: Path, kind: type[PacsError]
) -> None:
    scan = read_scan(next(make_archive(tmp_path / "in", 1).rglob("*.nii")))
    cases = [Case(f"c{number:02d}", f"c{number:02d}", "", scan) for number in range(20)]
    events: list[Mapping[str, Any]] = []

    def refuse(_: Sequence[Path]) -> int:
        raise kind("gone")

    out = Destination("dicomweb:http://127.0.0.1:9", "store", lambda entry: entry.files, refuse)
    with Ledger(tmp_path, create=True) as ledger:
        work = Work("in", tmp_path, ledger, events.append, destinations=[out])
        work.enter(cases)
        with pytest.raises(kind, match="--resume"):
            work.do(DoneAtOnce())
    failed = [event for event in events if event["event"] == "failed"]
    assert len(failed) == 3
    assert {event["stage"] for event in failed} == {"store"}


def test_messages_lose_the_name_of_the_archive_where_it_is_a_folder_and_nowhere_else(tmp_path: Path) -> None:
    error = UnreadableImage("in/a.nii is damaged; see /srv/main/notes and 'in/b.nii'")
    with Ledger(tmp_path, create=True) as ledger:
        Work("in", tmp_path, ledger, lambda _: None).enter([Case("a", "a", "a.nii", None, error)])
        entry = ledger.entry("a")
    assert entry is not None
    assert entry.failure is not None
    assert entry.failure.error == "UnreadableImage: a.nii is damaged; see /srv/main/notes and 'b.nii'"
