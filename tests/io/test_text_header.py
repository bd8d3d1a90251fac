from __future__ import annotations

import os

import numpy as np
import pytest

from medseg.errors import InvalidGeometry, ScanNotFound, UnreadableImage
from medseg.io.text_header import (
    LONGEST_HEADER,
    axis_sizes,
    detached_file,
    finite_numbers,
    grid_of,
    place_numbers,
    read_text_head,
    voxel_type,
    whole_numbers,
)


def test_numbers_are_read_or_refused_by_name():
    assert finite_numbers("1 -2.5 1e3", "Offset") == (1.0, -2.5, 1000.0)
    assert whole_numbers("1 -2 +3", "DimSize") == (1, -2, 3)
    for text in ("1 x", "nan", "inf", "1e999", "1,5"):
        with pytest.raises(UnreadableImage, match="Offset must be"):
            finite_numbers(text, "Offset")
    for text in ("1.0", "1e3", "x", "²", "1_000", "9" * 31, "-"):
        with pytest.raises(UnreadableImage, match="DimSize must be whole"):
            whole_numbers(text, "DimSize")


@pytest.mark.parametrize("name", ["LIST", "LIST 2", "a%03d.raw 1 9 1", "a%d.raw", "b/%5i.raw 1 9"])
def test_header_that_names_several_files_is_refused(tmp_path, name):
    with pytest.raises(UnreadableImage, match=r"a\.nhdr has its voxels in several files .* Save it as one file"):
        detached_file(tmp_path / "a.nhdr", name)


def test_percent_sign_alone_is_no_pattern(tmp_path):
    (tmp_path / "50%.raw").write_bytes(b"voxels")
    assert detached_file(tmp_path / "a.nhdr", "50%.raw").name == "50%.raw"


@pytest.mark.parametrize(
    ("dimension", "sizes", "message"),
    [
        ("3", "3 4", "3 dimensions of sizes"),
        ("3", "3 4 0", "3 dimensions of sizes"),
        ("3", "3 4 -5", "3 dimensions of sizes"),
        ("99", "3 4 5", "99 dimensions"),
        ("0", "", "0 dimensions"),
        ("3", "3 4 5.5", "whole numbers"),
        ("3", "3 4 " + "9" * 5000, "whole numbers"),
        ("3 3", "3 4 5", "one whole number"),
    ],
)
def test_sizes_that_do_not_agree_are_refused(tmp_path, dimension, sizes, message):
    with pytest.raises(UnreadableImage, match=rf"a\.mhd.*{message}"):
        axis_sizes(("NDims", dimension), ("DimSize", sizes), tmp_path / "a.mhd", "MetaImage")


def test_sizes_types_and_places_are_read_or_refused_by_name(tmp_path):
    path = tmp_path / "a.mhd"
    assert axis_sizes(("NDims", "4"), ("DimSize", "3 4 5 1"), path, "MetaImage") == (3, 4, 5, 1)
    assert voxel_type({"short": "i2"}, "short", path) == np.int16
    with pytest.raises(UnreadableImage, match=r"a\.mhd holds voxels of type 'block'"):
        voxel_type({"short": "i2"}, "block", path)
    with pytest.raises(InvalidGeometry, match="Offset must be finite"):
        place_numbers("1 nan", "Offset")
    with pytest.raises(InvalidGeometry, match=r"a\.mhd"):
        grid_of((3, 4, 5), np.zeros((4, 4)), path)


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
