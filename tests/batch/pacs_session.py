"""Ten studies through a batch from Orthanc to Orthanc, in a network namespace of its own.

    unshare -n python -m tests.batch.pacs_session STUDIES MODEL OUT

Prints what was done and found as JSON. Whatever happens, the server is stopped at the end.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom import Dataset

import medseg
from medseg.batch.remote import PacsSource
from medseg.dicom.pacs import PacsQuery, store_missing
from medseg.dicom.pacs_access import PacsAccess, open_pacs
from medseg.dicom.patience import Patience
from medseg.errors import MedsegError
from tests.dicom.orthanc_server import DICOM, PASSWORD, RECEIVE, ROOT, USER, ask, c_store, orthanc
from tests.dicom.orthanc_session import bring_loopback_up

WEB, DIMSE = f"dicomweb:{ROOT}/dicom-web", f"dimse:ORTHANC@127.0.0.1:{DICOM}"
HOW: dict[str, Any] = {"device": "cpu", "engine": "torch", "precision": "float32"}


def main(studies: Path, model: Path, out: Path) -> dict[str, Any]:
    """Run, and tell."""
    bring_loopback_up()
    told: dict[str, Any] = {}
    secrets = out / "pacs.yaml"
    secrets.parent.mkdir(parents=True, exist_ok=True)
    secrets.write_text(f"'{WEB}': {{user: {USER}, password: {PASSWORD}}}\n")
    secrets.chmod(0o600)
    web = PacsAccess(WEB, credentials=str(secrets), patience=Patience(2, 0.1))
    source = PacsSource(web, PacsQuery(modality="PT", description="WB *"))
    with tempfile.TemporaryDirectory() as folder, orthanc(Path(folder), with_password=True):
        c_store(studies)
        told["refused"] = refused(PacsAccess(WEB, patience=Patience(1)))
        told |= mistaken(source, model, out, secrets)
        told["first"] = run(source, model, out / "first", deliver_to=web)
        told["left"] = sorted(path.name for path in (out / "first").glob(".tmp-*"))
        told["found"] = found_by_study()
        before = ask("/changes?last")["Last"]
        told["resumed"] = run(source, model, out / "first", deliver_to=web, resume=True)
        told["again"] = run(source, model, out / "again", deliver_to=web)
        told["n_changes"] = ask("/changes?last")["Last"] - before
        dimse = PacsAccess(DIMSE, receive_port=RECEIVE, patience=Patience(2, 0.1))
        some = PacsSource(dimse, PacsQuery("PT", accession_numbers=("A3", "A4", "A5", "A99"), description="WB *"))
        told["by_dimse"] = run(some, model, out / "dimse", deliver_to=dimse)
        told["moved"] = by_dimse(out)
    told["gone"] = refused(web)
    return told


def run(source: PacsSource, model: Path, out: Path, **how: Any) -> dict[str, Any]:
    events: list[Mapping[str, Any]] = []
    status = medseg.run_archive(source, model, out, on_event=events.append, **HOW, **how)
    return {
        "n_done": status.n_done,
        "failures": [failure.error for failure in status.failures],
        "n_set_aside": status.n_set_aside,
        "n_new": sum(event["n_new"] for event in events if event["event"] == "stored"),
        "events": sorted({event["event"] for event in events}),
    }


def found_by_study() -> dict[str, list[str]]:
    """The modalities that QIDO-RS finds in each study, and the patient that their objects name."""
    found = {}
    for study in ask("/dicom-web/studies"):
        uid = study["0020000D"]["Value"][0]
        series = ask(f"/dicom-web/studies/{uid}/series?includefield=00100020")
        found[uid] = sorted(
            f"{item['00080060']['Value'][0]} {Dataset.from_json(item).get('PatientID', '')}".strip() for item in series
        )
    return found


def mistaken(source: PacsSource, model: Path, out: Path, secrets: Path) -> dict[str, str]:
    """What addresses and credentials that are wrong are told."""
    once = Patience(1)
    nowhere = PacsAccess(f"dicomweb:{ROOT}/nowhere", patience=once)
    no_tls = PacsAccess(WEB.replace("http:", "https:"), patience=once)
    wrong = out / "wrong.yaml"
    wrong.write_text(f"'{WEB}': {{user: {USER}, password: nonsense}}\n")
    wrong.chmod(0o600)
    told = {
        "no such path": refused(replace(nowhere, credentials=str(entered(secrets, nowhere.address)))),
        "no TLS": refused(no_tls),
        "unknown title": refused(PacsAccess(DIMSE, own_title="NOBODY", patience=once)),
        "shut out": "",
        "misnamed": "",
    }
    try:
        run(source, model, out / "shut out", deliver_to=PacsAccess(WEB, str(wrong), patience=once))
    except MedsegError as error:
        told["shut out"] = f"{type(error).__name__}: {error}"
    pacs = open_pacs(PacsAccess(DIMSE.replace("ORTHANC", "WRONG"), receive_port=RECEIVE, patience=once))
    (out / "misnamed").mkdir()
    try:
        pacs.fetch(pacs.find(PacsQuery(modality="PT", accession_numbers=("A3",)))[0], out / "misnamed")
    except MedsegError as error:
        told["misnamed"] = f"{type(error).__name__}: {error}"
    return told


def entered(secrets: Path, address: str) -> Path:
    """The same user and password for another address."""
    other = secrets.with_name("other.yaml")
    other.write_text(secrets.read_text().replace(WEB, address))
    other.chmod(0o600)
    return other


def by_dimse(out: Path) -> dict[str, Any]:
    """C-FIND, C-MOVE and C-STORE of one series."""
    pacs = open_pacs(PacsAccess(DIMSE, receive_port=RECEIVE, patience=Patience(2, 0.1)))
    found = pacs.find(PacsQuery(modality="PT", accession_numbers=("A3", "A4", "A99")))
    inbox = out / "moved"
    inbox.mkdir()
    n_files = pacs.fetch(found[0], inbox)
    report = next((out / "first").glob("*/lesions.sr.dcm"))

    return {
        "n_found": len(found),
        "n_instances": [series.n_instances for series in found],
        "n_files": n_files,
        "n_listed": len(pacs.instances(found[0].study_uid, found[0].series_uid)),
        "n_new": store_missing(pacs, [report]),
        "n_new_after_delete": deleted_and_stored(pacs, report),
    }


def deleted_and_stored(pacs: Any, report: Path) -> int:
    for series in ask("/series"):
        if ask(f"/series/{series}")["MainDicomTags"]["Modality"] == "SR":
            ask(f"/series/{series}", "DELETE")
    return store_missing(pacs, [report])


def refused(access: PacsAccess) -> str:
    try:
        open_pacs(access).find(PacsQuery(modality="PT"))
    except MedsegError as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    json.dump(main(*map(Path, sys.argv[1:4])), sys.stdout)
