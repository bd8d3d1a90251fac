"""An archive takes what we write and gives it back unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom import dcmread

import medseg
from tests.dicom.orthanc_server import run_in_own_network
from tests.dicom.results import result_on, series, some_lesions

pytestmark = pytest.mark.pacs


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, object]]]:
    """The folder with in/, stow/ and cstore/, and what the server said."""
    folder = tmp_path_factory.mktemp("pacs")
    scan = series(folder / "ct")
    (folder / "in").mkdir()
    result = result_on(scan, some_lesions(scan.geometry))
    for kind in ("binary", "labelmap"):
        out = medseg.write_case(result, folder / kind, rtstruct=True, keep_identifiers=True, seg_kind=kind)
        for path in out.glob("*.dcm"):
            if kind == "binary" or "seg" in path.name:
                shutil.copy(path, folder / "in" / f"{kind}.{path.name}")
    return folder, run_in_own_network("tests.dicom.orthanc_session", folder / "in", folder)


def test_stow_takes_every_object_and_gives_it_back_unchanged(
    answers: tuple[Path, dict[str, dict[str, object]]],
) -> None:
    folder, told = answers
    names = [path.name for path in (folder / "in").iterdir()]
    assert len(names) == 4 + 2
    assert told["stow"] == dict.fromkeys(sorted(names), "stored")
    assert told["found"] == dict.fromkeys(sorted(names), True)
    for name in names:
        sent = dcmread(folder / "in" / name)
        assert dcmread(folder / "stow" / f"{sent.SOPInstanceUID}.dcm") == sent, name


def test_c_store_takes_what_old_archives_know(answers: tuple[Path, dict[str, dict[str, object]]]) -> None:
    folder, told = answers
    for name, answer in told["cstore"].items():
        sent = dcmread(folder / "in" / name)
        if name.startswith("binary"):
            assert answer == "stored", name
            assert dcmread(folder / "cstore" / f"{sent.SOPInstanceUID}.dcm") == sent, name
        else:  # label maps are of 2024: dcmtk 3.6.7 does not know them, a newer one may
            assert answer == "stored" or "unknown storage SOP class" in str(answer), answer
