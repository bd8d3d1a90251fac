"""Files from anywhere: each is told in one sentence, in seconds, in bounded memory."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import MedsegError, ScanNotFound
from medseg.io.scan import load_volume, read_scan
from tests.io.nifti_files import save
from tests.io.text_headers import VOXELS, payload, write_meta, write_nrrd


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch /tmp/medseg-evil",)


def _bytes(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def _gzip_bomb(folder: Path) -> Path:
    """A header that promises 60 voxels, with 100 MiB of zeros behind them."""
    path = save(VOXELS, folder / "bomb.nii")
    return _bytes(folder, "bomb.nii.gz", gzip.compress(path.read_bytes() + bytes(100 * 2**20), 1))


def _gzip_promise(folder: Path) -> Path:
    path = save(VOXELS, folder / "p.nii", dim=[3, 4000, 4000, 4000, 1, 1, 1, 1])
    return _bytes(folder, "promise.nii.gz", gzip.compress(path.read_bytes()))


def _nested_zip(folder: Path) -> Path:
    data = b"nothing"
    for _ in range(30):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("inner.zip", data)
        data = buffer.getvalue()
    return _bytes(folder, "nested.zip", data)


def _secret(folder: Path) -> Path:
    (folder / "case").mkdir()
    (folder / "case" / "link").symlink_to("/etc/passwd")
    return write_meta(folder / "case" / "a.mhd", b"", ElementDataFile="link", DimSize="1 1 1", ElementType="MET_UCHAR")


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "web page": (lambda f: _bytes(f, "a.nii.gz", b"<!DOCTYPE html><title>404</title>"), "web page"),
    "packed web page": (lambda f: _bytes(f, "a.nii.gz", gzip.compress(b"<html>Sign in</html>")), "web page"),
    "pickle as NIfTI": (lambda f: _bytes(f, "a.nii", pickle.dumps(Evil())), "pickle"),
    "pickle as NRRD": (lambda f: _bytes(f, "a.nrrd", pickle.dumps(Evil())), "pickle"),
    "pickle as MetaImage": (lambda f: _bytes(f, "a.mha", pickle.dumps(Evil())), "pickle"),
    "pickle": (lambda f: _bytes(f, "a.pt", pickle.dumps(Evil())), "pickle"),
    "LFS pointer": (lambda f: _bytes(f, "a.nrrd", b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "gzip bomb": (_gzip_bomb, "after its last voxel"),
    "gzip promise": (_gzip_promise, "promises 128000000352 bytes"),
    "empty": (lambda f: _bytes(f, "a.mha", b""), "empty"),
    "zeros": (lambda f: _bytes(f, "a.nii", bytes(4000)), "nothing but zeros"),
    "dims below zero": (lambda f: save(VOXELS, f / "a.nii", dim=[3, -3, 4, 5, 1, 1, 1, 1]), "no image size"),
    "dims of zero": (lambda f: save(VOXELS, f / "a.nii", dim=[3, 3, 0, 5, 1, 1, 1, 1]), "no image size"),
    "99 dims": (lambda f: save(VOXELS, f / "a.nii", dim=[99, 3, 4, 5, 1, 1, 1, 1]), "99 dimensions"),
    "NaN affine": (lambda f: save(VOXELS, f / "a.nii", srow_y=[0, np.nan, 0, 0]), "NaN"),
    "infinite affine": (lambda f: save(VOXELS, f / "a.nii", srow_y=[0, 1, 0, np.inf]), "NaN or infinite"),
    "huge extension": (lambda f: save(VOXELS, f / "a.nii", vox_offset=2.0**38), "cannot begin at byte"),
    "endless NRRD": (lambda f: _bytes(f, "a.nrrd", b"NRRD0005\n" + b"x:=y\n" * 10**6), "does not end"),
    "endless line": (lambda f: _bytes(f, "a.mha", b"NDims = " + b"3" * (5 * 2**20)), "no end within"),
    "link to a secret": (_secret, "leads out of its folder"),
    "secret by name": (lambda f: write_nrrd(f / "a.nhdr", b"", data_file="/etc/passwd"), "own folder"),
    "device": (lambda f: write_nrrd(f / "a.nhdr", b"", data_file="/dev/zero"), "own folder"),
    "folder as voxels": (lambda f: write_nrrd(f / "a.nhdr", b"", data_file="."), "is a folder"),
    "header as voxels": (lambda f: write_nrrd(f / "a.nhdr", b"", data_file="a.nhdr", sizes="99 99 99"), "truncated"),
    "nested zips": (_nested_zip, "holds no DICOM image"),
    "zip of nothing": (lambda f: _bytes(f, "a.zip", b"PK\x05\x06" + bytes(18)), "holds no DICOM image"),
    "name too long": (lambda f: f / ("x" * 5000), "too long"),
    "name with NUL": (lambda f: f / "a\0b", "does not exist"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_told_in_one_sentence(tmp_path, name):
    make, message = HOSTILE[name]
    path = make(tmp_path)
    with pytest.raises(MedsegError, match=message) as told:
        load_volume(read_scan(path))
    assert len(str(told.value)) < 1000 + len(str(path))
    assert not Path("/tmp/medseg-evil").exists()


def test_header_that_is_its_own_voxel_file_is_read_as_such(tmp_path):
    path = write_nrrd(tmp_path / "a.nhdr", b"", data_file="a.nhdr", type="uchar", endian=None, sizes="1 1 1")
    assert load_volume(read_scan(path)).array.item() == ord("N")


def test_hostile_files_of_a_folder_do_not_hide_the_scan(tmp_path):
    save(VOXELS, tmp_path / "scan.nii.gz")
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "gone.nii").symlink_to("nothing")
    (tmp_path / "note.txt").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8bbroken")
    assert read_scan(tmp_path).case_id == "scan"


def test_folder_of_links_that_lead_out_holds_nothing(tmp_path):
    outside = save(VOXELS, tmp_path / "scan.nii")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "scan.nii").symlink_to(outside)
    with pytest.raises(ScanNotFound):
        read_scan(tmp_path / "folder")


def test_refusing_takes_no_more_memory_than_starting(tmp_path):
    """Peak memory of a process that meets each kind of oversized file, against one that reads a small scan."""
    small = save(VOXELS, tmp_path / "small.nii")
    (tmp_path / "x").mkdir()
    hostile = [_gzip_bomb(tmp_path), _gzip_promise(tmp_path)]
    hostile.append(write_nrrd(tmp_path / "x" / "a.nrrd", payload(), sizes="99999 99999 99999"))
    hostile.append(HOSTILE["endless NRRD"][0](tmp_path))
    code = (
        "import sys, resource\n"
        "from medseg.io.scan import load_volume, read_scan\n"
        "from medseg.errors import MedsegError\n"
        "for path in sys.argv[1:]:\n"
        "    try: load_volume(read_scan(path))\n"
        "    except MedsegError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )

    def peak_kib(paths: list[Path]) -> int:
        command = [sys.executable, "-c", code, *map(str, paths)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert peak_kib([small, *hostile]) < peak_kib([small]) + 60 * 1024
