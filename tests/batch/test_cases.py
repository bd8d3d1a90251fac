"""The cases of an archive: found in every form, named apart, bad ones with their reason."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np

from medseg.batch.cases import find_cases
from medseg.batch.ledger import Ledger
from tests.batch.archives import make_archive
from tests.io.dicom_files import write_series
from tests.io.nifti_files import save

SCAN = np.ones((6, 5, 4), dtype=np.float32)


def test_tree_tar_and_list_hold_the_same_cases(tmp_path: Path) -> None:
    tree = make_archive(tmp_path / "in", 3, 1)
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        archive.add(tree, ".")
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tree.rglob("*.nii"))
    (tmp_path / "in.txt").write_text("# cases\n\n" + "\n".join(names))
    by_tree, by_tar, by_list = (find_cases(tmp_path / name, "salt") for name in ("in", "in.tar", "in.txt"))
    assert [case.case_id for case in by_tree] == ["p0/bad_000.nii", "p0/scan_000", "p1/scan_001", "p2/scan_002"]
    assert [case.case_id for case in by_tar] == [case.case_id for case in by_tree]
    assert [case.case_id for case in by_list] == [f"in/{case.case_id}" for case in by_tree]
    for cases in (by_tree, by_tar, by_list):
        assert [case.error is None for case in cases] == [False, True, True, True]
        assert cases[1].fields["slices"] == 12


def test_a_line_of_a_list_with_tabs_is_one_case_of_several_channels(tmp_path: Path) -> None:
    for name in ("pet.nii.gz", "ct.nii.gz"):
        save(SCAN, tmp_path / name)
    (tmp_path / "list.txt").write_text("pet.nii.gz\tct.nii.gz\nmissing.nii.gz\n")
    missing, case = find_cases(tmp_path / "list.txt", "salt")
    assert (case.case_id, case.fields["channels"]) == ("pet", 2)
    assert (missing.case_id, missing.scan) == ("missing.nii.gz", None)
    assert missing.error is not None


def test_cases_that_share_a_name_or_a_folder_name_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("pet.nii", "pet.nii.gz", "a/b.nii", "a__b.nii"):
        save(SCAN, tmp_path / name)
    cases = find_cases(tmp_path, "salt")
    assert len({case.case_id for case in cases}) == len({case.folder for case in cases}) == 4
    assert all("/" not in case.folder for case in cases)
    assert [case.case_id for case in cases] == [case.case_id for case in find_cases(tmp_path, "salt")]
    assert {case.scan.case_id for case in cases if case.scan} == {case.case_id for case in cases}


def test_a_dicom_case_is_named_by_a_salted_hash_and_tells_its_modality(tmp_path: Path) -> None:
    write_series(tmp_path / "in")
    (case,), (other,) = find_cases(tmp_path / "in", "salt"), find_cases(tmp_path / "in", "pepper")
    assert case.case_id != other.case_id
    assert case.fields["format"] == "dicom"
    assert case.fields["modality"] is not None


def test_thousands_of_cases_are_entered_and_found_done_without_looking_at_them_twice(tmp_path: Path) -> None:
    cases = [(f"case_{number:05d}", f"folder_{number:05d}", "somewhere") for number in range(5000)]
    with Ledger(tmp_path, create=True) as ledger:
        ledger.add(cases)
        ledger.set_done("case_00007", "key", {"result.json": (3, "ab" * 32)}, 1.0)
        ledger.add(cases)  # as a resumed run does
        ledger.forget_gone({name for name, _, _ in cases[:4000]})
        entries = ledger.entries()
        assert [entry.case_id for entry in entries] == [name for name, _, _ in cases[:4000]]
        assert ledger.counts() == {"done": 1, "pending": 3999}
        assert not entries[7].files  # kept in the ledger, not in memory
        assert ledger.entries(with_files=True)[7].files == {"result.json": (3, "ab" * 32)}
        (tmp_path / "folder_00007").mkdir()
        ledger.forget_gone(set())
        assert ledger.counts() == {"done": 1}
        (tmp_path / "folder_00007").rmdir()
        ledger.forget_gone(set())
        assert ledger.counts() == {}
