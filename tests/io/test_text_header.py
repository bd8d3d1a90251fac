from __future__ import annotations

import os

import pytest

from medseg.errors import ScanNotFound, UnreadableImage
from medseg.io.text_header import LONGEST_HEADER, detached_file, finite_numbers, read_text_head, whole_numbers


def test_numbers_are_read_or_refused_by_name():
    assert finite_numbers("1 -2.5 1e3", "Offset") == (1.0, -2.5, 1000.0)
    assert whole_numbers("1 -2 +3", "DimSize") == (1, -2, 3)
    for text in ("1 x", "nan", "inf", "1e999", "1,5"):
        with pytest.raises(UnreadableImage, match="Offset must be"):
            finite_numbers(text, "Offset")
    for text in ("1.0", "1e3", "x", "²", "1_000", "9" * 31, "-"):
        with pytest.raises(UnreadableImage, match="DimSize must be whole"):
            whole_numbers(text, "DimSize")


def test_no_more_is_read_than_a_header_may_have(tmp_path):
    (tmp_path / "a").write_bytes(bytes(LONGEST_HEADER + 100))
    assert len(read_text_head(tmp_path / "a")) == LONGEST_HEADER + 1


def test_file_beside_or_below_the_header_is_found(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.raw", "./a.raw", "sub/a b.raw"):
        (tmp_path / name).write_bytes(b"voxels")
        assert detached_file(tmp_path / "a.nhdr", name).read_bytes() == b"voxels"


def test_link_within_the_folder_is_followed_and_one_out_of_it_is_not(tmp_path):
    (tmp_path / "case").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "case" / "a.raw").write_bytes(b"x")
    (tmp_path / "case" / "inner").symlink_to("a.raw")
    (tmp_path / "case" / "outer").symlink_to("../secret")
    (tmp_path / "case" / "up").symlink_to("..")
    assert detached_file(tmp_path / "case" / "a.nhdr", "inner")
    for name in ("outer", "up/secret"):
        with pytest.raises(UnreadableImage, match="leads out of its folder"):
            detached_file(tmp_path / "case" / "a.nhdr", name)


@pytest.mark.parametrize("name", ["/dev/zero", "../x", "..", "a/../../x", "\\\\host\\x", "C:x", "", "a\0b"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(UnreadableImage, match="only files in its own folder"):
        detached_file(tmp_path / "a.nhdr", name)


def test_pipe_is_refused_without_opening_it(tmp_path):
    os.mkfifo(tmp_path / "a.raw")
    with pytest.raises(ScanNotFound, match="no plain file"):
        detached_file(tmp_path / "a.nhdr", "a.raw")
