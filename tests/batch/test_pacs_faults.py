"""A PACS that is away, gives nothing, or stops answering: through the command, where users meet it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import pytest

from tests.batch.archives import temporary_files
from tests.cli.commands import assert_one_clear_error
from tests.cli.commands import run as run_command

pytest.importorskip("dicomweb_client", reason="no DICOMweb here: pip install 'medseg[pacs]'")


class Tired(BaseHTTPRequestHandler):
    """A DICOMweb service with one series, whose instances it is too busy to name."""

    studies = ("1.2",)

    def do_GET(self) -> None:
        place = self.path.split("?")[0]
        records = [{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in self.studies]
        if place.endswith("/series"):
            records = [{"0020000E": {"vr": "UI", "Value": ["1.2.3"]}, "00080060": {"vr": "CS", "Value": ["PT"]}}]
        self.send_response(503 if place.endswith("/instances") else 200)
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        self.wfile.write(json.dumps(records).encode())

    def log_message(self, *_: object) -> None:
        pass


class Bare(Tired):
    """A DICOMweb service that finds nothing."""

    studies = ()


def serve(kind: type[Tired]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"dicomweb:http://127.0.0.1:{server.server_port}/web"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tired() -> Iterator[str]:
    """The address of a service that is tired."""
    yield from serve(Tired)


@pytest.fixture
def bare() -> Iterator[str]:
    """The address of a service that finds nothing."""
    yield from serve(Bare)


@contextmanager
def started(address: str, model: Path, output: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """The batch's process and what it says; whatever a test finds, none is left."""
    words = ["batch", "--from", address, "--modality", "PT", "-m", model, "-o", output, "--engine", "torch", *more]
    command = [sys.executable, "-m", "medseg", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        try:
            yield run, run.stderr
        finally:
            run.kill()


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_pacs_that_is_away_is_told_before_each_wait(tmp_path: Path, tiny_bundle: Path, form: tuple[str, ...]) -> None:
    with started("dicomweb:http://127.0.0.1:9/web", tiny_bundle, tmp_path / "out", *form) as (run, stderr):
        said = stderr.readline()
        if form:
            told: dict[str, Any] = json.loads(said)
            assert (told["event"], told["attempt"], told["attempts"]) == ("delay", 2, 6)
            assert "connection refused" in told["reason"]
        else:  # half a second to a second, so that many clients do not come back at once
            assert re.search(r"connection refused; attempt 2 of 6 in (0\.[5-9]|1\.0) s$", said)
        run.send_signal(signal.SIGINT)
        rest = stderr.read()
        assert run.wait(timeout=60) == 130
    assert rest.splitlines()[-1] == "Interrupted."


def test_quiet_says_the_error_only(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("threading.Event.wait", lambda *_: False)  # nobody waits
    asked = ("batch", "--from", "dicomweb:http://127.0.0.1:9/web", "--modality", "PT", "-m", tiny_bundle)
    loud = run_command(*asked, "-o", tmp_path / "loud")
    assert loud.stderr.count("attempt") == 5
    assert_one_clear_error(run_command(*asked, "-o", tmp_path / "quiet", "--quiet"), 1, "connection refused")
    assert "attempt" not in run_command(*asked, "-o", tmp_path / "quiet", "--quiet").stderr


def test_a_batch_that_is_interrupted_does_not_wait_for_a_pacs_that_does_not_answer(
    tmp_path: Path, tiny_bundle: Path, tired: str
) -> None:
    with started(tired, tiny_bundle, tmp_path / "out", "--json") as (run, stderr):
        for line in stderr:
            told = json.loads(line)
            if told["event"] == "delay" and told["attempt"] == 4:  # 14 to 28 s of waits are to come
                break
        run.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        stderr.read()
        assert run.wait(timeout=60) == 143
        assert time.monotonic() - begin < 12.0
    assert temporary_files(tmp_path / "out") == []


@pytest.mark.parametrize("form", [(), ("--dry-run",)])
def test_a_query_that_matches_nothing_is_an_error_that_says_what_was_asked(
    tmp_path: Path, bare: str, tiny_bundle: Path, form: tuple[str, ...]
) -> None:
    query = ("--modality", "PT", "--study-date", "20240101-", "--series-description", "WB *", "--accession", "A1")
    result = run_command("batch", "--from", bare, *query, "-m", tiny_bundle, "-o", tmp_path / "out", *form)
    words = (
        "holds no series of images with modality PT, study date 20240101-, description 'WB *'",
        "1 accession number",
    )
    assert_one_clear_error(result, 2, *words)
    assert "A1" not in result.stderr
    assert not list(tmp_path.glob("out/*.sqlite"))
