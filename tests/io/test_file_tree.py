from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from medseg.errors import ScanError, ScanNotFound
from medseg.io.file_tree import walk_files


def names(root: Path, skipped: Counter[str] | None = None) -> list[str]:
    return [path.relative_to(root).as_posix() for path in walk_files(root, skipped)]


def test_files_come_folder_by_folder_in_the_order_of_names(tmp_path):
    for name in ("b/2", "b/1", "a/x/3", "z", "a/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert names(tmp_path) == ["z", "a/y", "a/x/3", "b/1", "b/2"]


def test_loops_links_out_pipes_and_hidden_files_are_passed_over_and_counted(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(b"x")
    (root / "sub" / "file").write_bytes(b"x")
    (root / "sub" / "loop").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "out_folder").symlink_to(tmp_path)
    (root / "inner").symlink_to("sub/file")
    (root / "._file").write_bytes(b"x")
    (root / ".git").mkdir()
    os.mkfifo(root / "pipe")
    skipped: Counter[str] = Counter()
    assert names(root, skipped) == ["sub/file"]
    assert skipped == {
        "hidden files and folders": 2,
        "links to folders, or to nothing": 2,
        "links that lead out of the tree": 2,
        "links to files that are found themselves": 1,
        "pipes and devices": 1,
    }


def test_link_into_a_hidden_store_stands_for_its_file(tmp_path):
    (tmp_path / ".store").mkdir()
    (tmp_path / ".store" / "a1b2").write_bytes(b"x")
    (tmp_path / "scan.nii").symlink_to(".store/a1b2")
    assert names(tmp_path) == ["scan.nii"]


def test_root_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    assert names(tmp_path / "link") == ["a"]


def test_folders_too_deep_are_passed_over(tmp_path):
    deep = tmp_path.joinpath(*["d"] * 70)
    deep.mkdir(parents=True)
    (deep / "a").write_bytes(b"")
    skipped: Counter[str] = Counter()
    assert names(tmp_path, skipped) == []
    assert skipped == {"folders that lie too deep": 1}


def test_more_files_than_allowed_are_refused(tmp_path):
    for n in range(4):
        (tmp_path / str(n)).write_bytes(b"")
    assert len(list(walk_files(tmp_path, most_files=4))) == 4
    with pytest.raises(ScanError, match="more than 3 files"):
        list(walk_files(tmp_path, most_files=3))


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(ScanNotFound):
        list(walk_files(tmp_path / "none"))


def test_many_files_take_little_memory(tmp_path):
    for folder in range(20):
        (tmp_path / str(folder)).mkdir()
        for n in range(250):
            (tmp_path / str(folder) / str(n)).touch()
    code = (
        "import sys, tracemalloc; from medseg.io.file_tree import walk_files; tracemalloc.start();"
        "print(sum(1 for _ in walk_files(sys.argv[1])), tracemalloc.get_traced_memory()[1])"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    n_files, peak = map(int, shown.stdout.split())
    assert n_files == 5000
    assert peak < 500_000
