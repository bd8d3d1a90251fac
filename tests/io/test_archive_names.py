from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.io.archive_names import SafeNames


def path_for(name: str) -> str:
    return str(SafeNames().path_for(name))


@pytest.mark.parametrize("name", ["a.dcm", "ct/IM0001", "p 7/a.b.nii.gz", "läsion/è.nrrd", ".hidden"])
def test_usual_names_are_kept(name):
    assert path_for(name) == name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("C:\\windows\\x.dcm", "windows/x.dcm"),
        ("\\\\host\\share\\x", "host/share/x"),
        ("a/./b//c", "a/b/c"),
        ("..", "unnamed"),
        ("", "unnamed"),
        ("CON", "_CON"),
        ("nul.dcm", "_nul.dcm"),
        ("dir./file. ", "dir/file"),
        ("a\nb.dcm", "a_b.dcm"),
        ("a\0b\x1b[31m", "a_b_[31m"),
        ("bad\udcff.dcm", "bad_.dcm"),
    ],
)
def test_dangerous_names_are_made_safe(name, safe):
    assert path_for(name) == safe


def test_long_names_are_cut_and_keep_their_suffix():
    safe = path_for("x" * 300 + ".nii.gz")
    assert safe.endswith(".nii.gz")
    assert len(safe) < 60
    assert path_for("x" * 301 + ".nii.gz") != safe


def test_deep_paths_are_cut():
    assert path_for("d/" * 3000 + "a.dcm").count("/") < 10


def test_names_that_collide_get_names_of_their_own():
    names = SafeNames()
    given_names = ["A.dcm", "a.dcm", "a.dcm", "a/b", "A/b", "a", "x\n", "x\t", "é", "e\u0301"]
    safe = [str(names.path_for(name)) for name in given_names]
    assert safe[0] == "A.dcm"
    assert len({name.lower() for name in safe}) == len(safe)
    assert safe[1].endswith(".dcm")


@given(st.lists(st.text(max_size=40) | st.sampled_from(["a", "A", "a/b", "a/b/c", "a/B", "../a", "/a/b"]), max_size=12))
def test_any_names_lie_inside_and_apart(tmp_path_factory, members):
    names = SafeNames()
    safe = [names.path_for(name) for name in members]
    files = {str(path).casefold() for path in safe}
    assert len(files) == len(safe)
    for path in safe:
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert not {str(parent).casefold() for parent in path.parents} & files  # no file is another's folder
        assert all(0 < len(os.fsencode(part)) <= 255 for part in Path(path).parts)
