"""A batch from a PACS to a PACS: Orthanc, with a password, ten studies pushed by storescu."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from medseg.batch.remote import PacsSource, find_remote_cases
from medseg.dicom.pacs import PacsQuery
from medseg.dicom.pacs_access import PacsAccess
from medseg.errors import UsageError
from tests.dicom.orthanc_server import run_in_own_network
from tests.io.dicom_files import add_pet_tags, write_series

pytestmark = pytest.mark.pacs

N_STUDIES = 10


def write_study(folder: Path, number: int) -> str:
    """A PET series with a lesion of 12 SUV if the number is odd, a CT and a PET localizer; the study's UID."""
    study, frame = f"1.2.826.0.1.{number + 1}", generate_uid()

    def write(name: str, modality: str, description: str, image_type: str, n_slices: int) -> None:
        series = generate_uid()

        def edit(dataset: Dataset, k: int) -> None:
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
            dataset.PatientID, dataset.PatientName, dataset.AccessionNumber = f"P{number}", f"N^{number}", f"A{number}"
            dataset.StudyDate, dataset.SeriesDescription = f"202401{number + 10}", description
            dataset.ImageType = ["ORIGINAL", "PRIMARY", image_type]
            if modality == "PT":
                add_pet_tags(dataset)
                pixels = np.full((dataset.Rows, dataset.Columns), 2500, dtype="<i2")
                if number % 2 and 1 <= k <= 2:
                    pixels[1:4, 2:5] = 30000
                dataset.RescaleSlope, dataset.RescaleIntercept = 1.0, 0.0
                dataset.PixelData = pixels.tobytes()

        write_series(folder / f"s{number}" / name, n_slices=n_slices, edit=edit, modality=modality)

    write("pet", "PT", "WB AC", "AXIAL", 4)
    write("ct", "CT", "WB AC", "AXIAL", 4)
    write("scout", "PT", "WB scout", "LOCALIZER", 1)
    write("brain", "PT", "brain", "AXIAL", 4)
    return study


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> tuple[Path, list[str], dict[str, Any]]:
    """The output folder, the studies, and what the session told."""
    folder = tmp_path_factory.mktemp("pacs")
    studies = [write_study(folder / "in", number) for number in range(N_STUDIES)]
    answer = run_in_own_network("tests.batch.pacs_session", folder / "in", tiny_bundle, folder / "out")
    return folder / "out", studies, answer


def test_results_lie_in_the_right_study_and_name_its_patient(
    told: tuple[Path, list[str], dict[str, Any]],
) -> None:
    out, studies, answer = told
    assert answer["first"]["failures"] == []
    assert (answer["first"]["n_done"], answer["first"]["n_set_aside"]) == (N_STUDIES, N_STUDIES)
    assert answer["left"] == []
    for number, study in enumerate(studies):
        results = ["SEG", "SEG", "SR"] if number % 2 else ["SR"]
        expected = sorted(f"{modality} P{number}" for modality in ["CT", "PT", "PT", "PT", *results])
        assert answer["found"][study] == expected
    for path in out.glob("first/*/*.dcm"):
        dataset = dcmread(path)
        assert dataset.PatientID == f"P{studies.index(dataset.StudyInstanceUID)}"


def test_a_second_run_changes_nothing(told: tuple[Path, list[str], dict[str, Any]]) -> None:
    _, _, answer = told
    assert answer["first"]["n_new"] == N_STUDIES + 2 * (N_STUDIES // 2)
    assert answer["resumed"]["events"] == ["end", "found", "skipped"]
    assert (answer["again"]["n_done"], answer["again"]["n_new"]) == (N_STUDIES, 0)
    assert answer["n_changes"] == 0


def test_c_find_c_move_and_c_store_do_the_same(told: tuple[Path, list[str], dict[str, Any]]) -> None:
    out, _, answer = told
    assert answer["by_dimse"]["failures"] == []  # threads fetch at a time, by one port
    assert (answer["by_dimse"]["n_done"], answer["by_dimse"]["n_set_aside"]) == (3, 3)
    assert answer["by_dimse"]["n_new"] == 0
    moved = answer["moved"]
    assert moved["n_found"] == 6
    assert moved["n_files"] == moved["n_listed"] == len(list((out / "moved").iterdir())) in (1, 4)
    assert (moved["n_new"], moved["n_new_after_delete"]) == (0, 1)
    assert all(dcmread(path).PatientID in ("P3", "P4") for path in (out / "moved").iterdir())


def test_a_server_that_refuses_or_is_gone_is_said(told: tuple[Path, list[str], dict[str, Any]]) -> None:
    _, _, answer = told
    assert answer["refused"].startswith("PacsDenied")
    assert "401" in answer["refused"]
    assert "--credentials" in answer["refused"]
    assert answer["no such path"].startswith("PacsError")
    assert "404" in answer["no such path"]
    assert answer["no TLS"].startswith("PacsDenied")
    assert "http instead of https" in answer["no TLS"]
    assert answer["unknown title"].startswith("PacsUnreachable")
    assert "--own-title" in answer["unknown title"]
    assert answer["gone"].startswith("PacsUnreachable")
    assert "connection refused" in answer["gone"]


def test_a_pacs_that_does_not_let_us_store_ends_the_run_after_three_cases(
    told: tuple[Path, list[str], dict[str, Any]],
) -> None:
    _, _, answer = told
    assert answer["shut out"].startswith("PacsDenied")
    assert "--resume" in answer["shut out"]


def test_an_archive_that_sends_by_another_name_is_told_what_it_must_know(
    told: tuple[Path, list[str], dict[str, Any]],
) -> None:
    _, _, answer = told
    assert answer["misnamed"].startswith("PacsError")  # one series may fail alone
    assert "call itself WRONG" in answer["misnamed"]


def test_passwords_are_taken_from_private_files_only(tmp_path: Path) -> None:
    query = PacsQuery(modality="PT")
    address = "dicomweb:http://pacs.example.org/dicom-web"
    file = tmp_path / "pacs.yaml"
    file.write_text(f"'{address}': {{user: me, password: xyz}}\n")
    for access, words in (
        (PacsAccess("dicomweb:https://me:xyz@pacs.example.org/"), "holds a user or password"),
        (PacsAccess(address, credentials=str(file)), "chmod 600"),
        (PacsAccess("dimse:TOO LONG A TITLE FOR IT@host:104"), "no address"),
        (PacsAccess("ftp:pacs"), "no address"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            find_remote_cases(PacsSource(access, query), "salt")
        assert "xyz" not in str(caught.value)
    file.chmod(0o600)
    with pytest.raises(UsageError, match="by https only"):
        find_remote_cases(PacsSource(PacsAccess(address, credentials=str(file)), query), "salt")
    file.write_text(f"'{address}': {{user: me, password: 0123}}\n")
    with pytest.raises(UsageError, match="password must be text; put it in quotes"):
        find_remote_cases(PacsSource(PacsAccess(address, credentials=str(file)), query), "salt")
    with pytest.raises(UsageError, match="narrow it"):
        PacsQuery()


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"own_title": "A TITLE THAT IS TOO LONG"}, "1 to 16"),
        ({"own_title": ""}, "1 to 16"),
        ({"receive_port": 99999}, "65535"),
    ],
)
def test_a_title_or_port_that_cannot_be_is_said_at_once(own: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        PacsAccess("dimse:A@127.0.0.1:104", **own)
