from __future__ import annotations

import gzip
import os

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.errors import ScanNotFound, ScanTooLarge, UnreadableImage
from medseg.io import memory
from medseg.io.label_files import read_lesions, read_semantic
from medseg.io.scan import hash_inputs, load_volume, read_scan
from medseg.io.volume_files import is_volume_file, is_volume_name, read_volume_array, volume_format, volume_stem
from tests.io.nifti_files import save
from tests.io.text_headers import RAS_AFFINE, VOXELS, payload, write_meta, write_nrrd


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.nii.gz", "a"),
        ("a.b.nrrd", "a.b"),
        ("a.NHDR", "a"),
        ("a.mha", "a"),
        ("a.mhd", "a"),
        ("a.hdr", "a"),
    ],
)
def test_stem_is_the_name_without_the_suffix(name, stem):
    assert is_volume_name(f"x/{name}")
    assert volume_stem(f"x/{name}") == stem


def test_other_names_are_kept():
    assert not is_volume_name("a.raw")
    assert volume_stem("a.raw") == "a.raw"


@pytest.mark.parametrize("found", ["nifti", "nrrd", "metaimage"])
def test_file_without_suffix_is_told_by_its_content(tmp_path, found):
    make = {"nifti": lambda p: save(VOXELS, p), "nrrd": write_nrrd, "metaimage": write_meta}[found]
    suffix = {"nifti": "nii", "nrrd": "nrrd", "metaimage": "mha"}[found]
    path = make(tmp_path / f"a.{suffix}").rename(tmp_path / "scan")
    assert volume_format(path) == found
    np.testing.assert_array_equal(read_volume_array(path)[0], VOXELS)
    assert read_scan(path).format == found
    assert read_scan(tmp_path).case_id == "scan"


def test_packed_file_without_suffix_is_told_by_its_content(tmp_path):
    path = save(VOXELS, tmp_path / "a.nii")
    (tmp_path / "scan").write_bytes(gzip.compress(path.read_bytes()))
    assert volume_format(tmp_path / "scan") == "nifti"


def test_what_is_no_volume_is_refused_by_what_it_is(tmp_path):
    (tmp_path / "a").write_bytes(b"\x80\x04K\x01.")
    assert volume_format(tmp_path / "a") is None
    with pytest.raises(UnreadableImage, match=r"a is no volume .* it is a Python pickle"):
        read_volume_array(tmp_path / "a")


def test_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ScanNotFound, match="no plain file"):
        read_scan(tmp_path / "pipe")


def test_pair_stands_in_a_folder_once_and_a_lone_hdr_not_at_all(tmp_path):
    for name in ("a.hdr", "a.img", "b.hdr", "c.img"):
        (tmp_path / name).write_bytes(b"")
    assert [name for name in ("a.hdr", "a.img", "b.hdr", "c.img") if is_volume_file(tmp_path / name)] == ["a.hdr"]


def test_detached_voxels_are_files_of_the_scan_and_hashed_with_it(tmp_path):
    (tmp_path / "a.raw").write_bytes(payload())
    scan = read_scan(write_nrrd(tmp_path / "a.nhdr", b"", data_file="a.raw"))
    assert [file.name for file in scan.files[0]] == ["a.nhdr", "a.raw"]
    before = hash_inputs(scan)
    (tmp_path / "a.raw").write_bytes(payload(VOXELS + 1))
    assert hash_inputs(scan) != before


@pytest.mark.parametrize("make", [write_nrrd, write_meta])
def test_scans_and_label_maps_come_in_every_format(tmp_path, make):
    labels = (VOXELS > 40).astype("<i2")
    path = make(tmp_path / ("a.nrrd" if make is write_nrrd else "a.mha"), payload(labels))
    scan = read_scan(path)
    volume = load_volume(scan, units="suv")
    assert scan.case_id == "a"
    assert scan.geometry.matches(Geometry((3, 4, 5), RAS_AFFINE))
    np.testing.assert_array_equal(volume.array[0], labels)
    assert "taken as SUV on trust" in volume.notes[0]
    assert read_semantic(path).n_foreground_voxels == 19
    assert read_lesions(path).n_lesions == 1


def test_volume_beyond_the_memory_is_refused_before_it_is_made(tmp_path, monkeypatch):
    path = save(VOXELS, tmp_path / "a.nii")
    scan = read_scan(path)
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 200)
    with pytest.raises(ScanTooLarge, match=r"a\.nii needs"):
        read_volume_array(path)
    with pytest.raises(ScanTooLarge, match="a needs"):
        load_volume(scan)


def test_notes_of_header_and_voxels_are_told_once(tmp_path):
    path = save(VOXELS[..., None], tmp_path / "a.nii")
    path.write_bytes(path.read_bytes() + b"x")
    notes = read_volume_array(path)[2]
    assert notes == (
        "a.nii: dropped 1 single axes of shape (3, 4, 5, 1)",
        "a.nii: ignored 1 bytes after the last voxel",
    )
