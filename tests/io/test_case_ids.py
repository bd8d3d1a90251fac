from __future__ import annotations

import hashlib

from medseg.io.case_ids import SALT_FILE, dicom_case_id, new_salt, read_salt, write_salt


def test_case_id_is_sixteen_digits_of_the_salted_hash():
    assert dicom_case_id("salt", "1.2", "3.4") == hashlib.sha256(b"salt1.23.4").hexdigest()[:16]


def test_another_salt_gives_another_name():
    assert dicom_case_id("a", "1.2", "3.4") != dicom_case_id("b", "1.2", "3.4")


def test_salts_differ_and_are_long():
    assert len({new_salt() for _ in range(20)}) == 20
    assert len(new_salt()) == 32


def test_salt_is_kept_hidden_in_the_output_folder(tmp_path):
    assert read_salt(tmp_path) is None
    write_salt(tmp_path / "out", "5a17")
    assert read_salt(tmp_path / "out") == "5a17"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [SALT_FILE] == [".medseg-salt"]
    assert (tmp_path / "out" / SALT_FILE).stat().st_mode & 0o077 == 0


def test_empty_salt_file_counts_as_none(tmp_path):
    (tmp_path / SALT_FILE).write_text("\n")
    assert read_salt(tmp_path) is None
