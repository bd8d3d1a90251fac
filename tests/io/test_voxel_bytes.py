from __future__ import annotations

import bz2
import gzip
import os
import time
import zlib

import numpy as np
import pytest

from medseg.errors import ScanNotFound, UnreadableImage
from medseg.io.voxel_bytes import (
    VoxelSource,
    check_plain_file,
    check_promise,
    read_head,
    read_voxel_bytes,
    read_voxel_parts,
    reading,
)

DATA = bytes(range(200))
PACKERS = {"none": bytes, "gzip": gzip.compress, "zlib": zlib.compress, "bzip2": bz2.compress}


@pytest.mark.parametrize("packing", PACKERS)
def test_voxels_come_out_as_they_were_packed(tmp_path, packing):
    (tmp_path / "a").write_bytes(b"head" + PACKERS[packing](DATA))
    source = VoxelSource(tmp_path / "a", len(DATA) - 5, packing, file_offset=4, skipped_bytes=5)
    voxels, notes = read_voxel_bytes(source)
    assert voxels.tobytes() == DATA[5:]
    assert voxels.flags.writeable
    assert notes == ()


@pytest.mark.parametrize("packing", PACKERS)
def test_bytes_after_the_last_voxel_are_counted(tmp_path, packing):
    (tmp_path / "a").write_bytes(PACKERS[packing](DATA))
    _, notes = read_voxel_bytes(VoxelSource(tmp_path / "a", len(DATA) - 3, packing))
    assert notes == ("a: ignored 3 bytes after the last voxel",)


@pytest.mark.parametrize("packing", PACKERS)
def test_missing_bytes_are_refused(tmp_path, packing):
    (tmp_path / "a").write_bytes(PACKERS[packing](DATA))
    with pytest.raises(UnreadableImage, match="a is truncated: its header promises 201 bytes"):
        read_voxel_bytes(VoxelSource(tmp_path / "a", len(DATA) + 1, packing))


@pytest.mark.parametrize("packing", PACKERS)
def test_more_than_a_file_can_hold_is_refused_before_reading(tmp_path, packing):
    (tmp_path / "a").write_bytes(PACKERS[packing](DATA))
    with pytest.raises(UnreadableImage, match="truncated"):
        check_promise(VoxelSource(tmp_path / "a", 10**12, packing))


@pytest.mark.parametrize("packing", ["gzip", "zlib", "bzip2"])
def test_bomb_behind_the_last_voxel_is_refused_in_time(tmp_path, packing):
    (tmp_path / "a").write_bytes(PACKERS[packing](bytes(80 * 2**20)))
    start = time.monotonic()
    with pytest.raises(UnreadableImage, match="goes on for more than 64 MiB after its last voxel"):
        read_voxel_bytes(VoxelSource(tmp_path / "a", 100, packing))
    assert time.monotonic() - start < 20


def test_gzip_in_several_members_is_read_through(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(DATA[:90]) + gzip.compress(DATA[90:]))
    assert read_voxel_bytes(VoxelSource(tmp_path / "a", 200, "gzip"))[0].tobytes() == DATA


def test_head_is_unpacked_if_it_is_gzip(tmp_path):
    (tmp_path / "plain").write_bytes(DATA)
    (tmp_path / "packed").write_bytes(gzip.compress(DATA))
    assert read_head(tmp_path / "plain", 9) == read_head(tmp_path / "packed", 9) == DATA[:9]


def test_pipes_devices_and_folders_are_no_plain_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "no plain file"), (tmp_path, "a folder"), (tmp_path / "no", "not exist")):
        with pytest.raises(ScanNotFound, match=what):
            check_plain_file(path, "a scan")


def test_name_too_long_for_the_system_is_told_as_unreadable(tmp_path):
    with pytest.raises(UnreadableImage, match="too long"):
        check_plain_file(tmp_path / ("x" * 300), "a scan")


def test_errors_of_the_system_and_of_decoders_name_the_file():
    for error in (OSError("disk"), EOFError("end"), zlib.error("bad"), MemoryError("full")):
        with pytest.raises(UnreadableImage, match=r"a\.nii is damaged or cannot be read"), reading("a.nii"):
            raise error
    with pytest.raises(ScanNotFound, match=r"^as it was$"), reading("a.nii"):
        raise ScanNotFound("as it was")


def test_voxels_are_as_many_as_promised_of_type_uint8(tmp_path):
    (tmp_path / "a").write_bytes(DATA)
    voxels, _ = read_voxel_bytes(VoxelSource(tmp_path / "a", 200))
    assert (voxels.dtype, voxels.shape) == (np.uint8, (200,))


def test_voxels_are_read_part_after_part_into_one_buffer(tmp_path):
    path = tmp_path / "packed.gz"
    path.write_bytes(gzip.compress(bytes(range(20))))
    buffer, seen = np.empty(5, np.uint8), []

    def parts():
        for _ in range(3):
            yield buffer
            seen.append(bytes(buffer))

    notes = read_voxel_parts(VoxelSource(path, 15, "gzip", skipped_bytes=2), parts())
    assert seen == [bytes(range(2, 7)), bytes(range(7, 12)), bytes(range(12, 17))]
    assert notes == ("packed.gz: ignored 3 bytes after the last voxel",)
    with pytest.raises(UnreadableImage, match="promises 25 bytes, it holds 20"):
        read_voxel_parts(VoxelSource(path, 25, "gzip"), [buffer] * 5)
