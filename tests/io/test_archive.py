from __future__ import annotations

import bz2
import gzip
import io
import lzma
import multiprocessing
import os
import stat
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import AmbiguousSeries, ScanNotFound, UnreadableImage, UnsafeArchive
from medseg.io.archive import (
    ArchiveLimits,
    UnpackedArchive,
    is_archive,
    unpack_archive,
    unpack_until_exit,
    unpacked_archive,
)
from medseg.io.discover import find_scans
from medseg.io.scan import load_volume, read_scan
from tests.io.dicom_files import write_series
from tests.io.nifti_files import save
from tests.io.text_headers import VOXELS, payload, write_meta, write_nrrd


def make_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def files_of(unpacked: UnpackedArchive) -> dict[str, bytes]:
    found = sorted(path for path in unpacked.folder.rglob("*") if path.is_file())
    return {path.relative_to(unpacked.folder).as_posix(): path.read_bytes() for path in found}


def zip_folder(path: Path, folder: Path) -> Path:
    return make_zip(path, {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()})


MEMBERS = {"a/1.dcm": b"one" * 1000, "a/2.dcm": b"two", "empty": b""}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_come_out_whole(tmp_path, mode, tar_format):
    long = {**MEMBERS, "d/" + "x" * 150 + ".dcm": b"long name"}
    path = tmp_path / "a.bin"
    with tarfile.open(path, mode, format=tar_format) as archive:
        for name, data in long.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            try:
                archive.addfile(entry, io.BytesIO(data))
            except ValueError:
                continue  # a name beyond USTAR
    assert is_archive(path)
    with unpacked_archive(path) as unpacked:
        found = files_of(unpacked)
        assert MEMBERS.items() <= found.items()
        assert unpacked.damaged == ()
        assert len(found) == (3 if tar_format == tarfile.USTAR_FORMAT else 4)
        assert len(unpacked.renamed) == len(unpacked.notes) == len(found) - 3
        assert stat.S_IMODE(unpacked.folder.stat().st_mode) == 0o700
    assert not unpacked.folder.exists()


def test_zips_come_out_whole(tmp_path):
    path = make_zip(tmp_path / "a", MEMBERS)
    assert is_archive(path)
    with unpacked_archive(path) as unpacked:
        assert files_of(unpacked) == MEMBERS
        assert unpacked.damaged == unpacked.notes == ()


@pytest.mark.parametrize("content", [b"", b"text", bytes(2000), gzip.compress(b"text"), bz2.compress(b""), b"PK"])
def test_other_content_is_no_archive(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    assert not is_archive(tmp_path / "a.zip")
    with pytest.raises(UnreadableImage, match="no zip or tar"), unpacked_archive(tmp_path / "a.zip"):
        pass


def test_missing_archive_and_pipe_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "none"):
        with pytest.raises(ScanNotFound):
            is_archive(tmp_path / name)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_nothing_is_written_outside(tmp_path, make):
    names = ["../evil", "/abs/evil", "a/../../evil", "C:\\evil", "..\\evil", "CON", "x\ny", "A", "a", "z" * 300]
    path = make(tmp_path / "a.bin", {name: name.encode() for name in names})
    folder = tmp_path / "deep" / "er" / "out"
    folder.mkdir(parents=True)
    before = {p for p in tmp_path.rglob("*") if not p.is_relative_to(folder)}
    unpacked = unpack_archive(path, folder)
    assert {p for p in tmp_path.rglob("*") if not p.is_relative_to(folder)} == before
    assert sorted(files_of(unpacked).values()) == sorted(name.encode() for name in names)
    assert "../evil" in unpacked.renamed.values()


def test_names_that_are_no_utf8_are_unpacked(tmp_path):
    path = make_tar(tmp_path / "a.tar", {"x.dcm": b"1"})
    data = bytearray(path.read_bytes())
    data[0:5] = b"\xff.dcm"
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    with unpacked_archive(path) as unpacked:
        assert files_of(unpacked) == {"_.dcm": b"1"}


def test_links_and_devices_are_passed_over_and_counted(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (
            ("s", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("d", tarfile.CHRTYPE),
            ("p", tarfile.FIFOTYPE),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        archive.addfile(tarfile.TarInfo("file"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive_zip:
        link = zipfile.ZipInfo("s")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive_zip.writestr(link, "/etc/passwd")
    with unpacked_archive(tmp_path / "a.tar") as unpacked:
        assert list(files_of(unpacked)) == ["file"]
        assert unpacked.notes == ("archive: passed over 2 devices and pipes", "archive: passed over 2 links")
    with unpacked_archive(tmp_path / "a.zip") as unpacked:
        assert files_of(unpacked) == {}
        assert unpacked.notes == ("archive: passed over 1 links",)


# damage


def test_wrong_checksum_encryption_and_other_methods_are_named_and_the_rest_is_read(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"bad": b"x" * 50, "good": b"y" * 50, "secret": b"z"}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"xxxx")] ^= 1
    central = data.rindex(b"PK\x01\x02")
    data[central + 8] |= 1
    path.write_bytes(data)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("lzma", b"w" * 50)
    with unpacked_archive(path) as unpacked:
        assert files_of(unpacked) == {"good": b"y" * 50}
        reasons = {member.name: member.reason for member in unpacked.damaged}
    assert "CRC" in reasons["bad"]
    assert "encrypted" in reasons["secret"]
    assert "LZMA" in reasons["lzma"]


def test_member_without_a_name_is_reported(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", b"data")
        archive.infolist()[0].filename = ""
    with unpacked_archive(tmp_path / "a.zip") as unpacked:
        assert files_of(unpacked) == {}
        assert "differ" in unpacked.damaged[0].reason


@pytest.mark.parametrize("cut", [10, 60])
def test_truncated_zip_is_refused(tmp_path, cut):
    path = make_zip(tmp_path / "a.zip", MEMBERS)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UnreadableImage, match="truncated zip"), unpacked_archive(path):
        pass


def test_zip_of_more_files_than_its_end_can_count_is_whole(tmp_path):
    path = make_zip(tmp_path / "a.zip", {f"{n}/": b"" for n in range(65540)})
    with unpacked_archive(path) as unpacked:
        assert unpacked.damaged == ()


def test_zip_whose_end_counts_other_files_is_reported(tmp_path):
    path = make_zip(tmp_path / "a.zip", MEMBERS)
    data = bytearray(path.read_bytes())
    data[-12] += 1
    path.write_bytes(data)
    with unpacked_archive(path) as unpacked:
        assert [member.reason for member in unpacked.damaged] == ["the zip lists 3 files, its end says 4"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_truncated_tar_names_what_is_lost_and_keeps_the_rest(tmp_path, mode):
    noise = np.random.default_rng(0).bytes(300_000)
    path = make_tar(tmp_path / "a.tar", {"first": noise, "second": noise[::-1]}, mode)
    path.write_bytes(path.read_bytes()[:400_000])
    with unpacked_archive(path) as unpacked:
        assert files_of(unpacked) == {"first": noise}
        assert unpacked.damaged[0].name == "second"


def test_damage_in_the_middle_of_a_tar_is_reported(tmp_path):
    path = make_tar(tmp_path / "a.tar", {"first": b"1", "second": b"2", "third": b"3"})
    data = bytearray(path.read_bytes())
    data[1024:1030] = b"broken"
    path.write_bytes(data)
    with unpacked_archive(path) as unpacked:
        assert files_of(unpacked) == {"first": b"1"}
        assert "what follows is lost" in unpacked.damaged[0].reason


@pytest.mark.parametrize("n_blocks", [2, 4])
def test_tar_cut_between_two_files_is_reported(tmp_path, n_blocks):
    path = make_tar(tmp_path / "a.tar", {"first": b"1", "second": b"2"})
    path.write_bytes(path.read_bytes()[: n_blocks * 512])
    with unpacked_archive(path) as unpacked:
        assert "no end mark" in unpacked.damaged[0].reason


def test_wrong_checksum_of_a_packed_tar_is_reported(tmp_path):
    path = make_tar(tmp_path / "a.tgz", {"first": b"1" * 5000}, "w:gz")
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    with unpacked_archive(path) as unpacked:
        assert "CRC" in unpacked.damaged[0].reason


# limits


def test_bomb_in_a_zip_is_refused_by_its_ratio_and_the_rest_is_read(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"bomb": bytes(3_000_000), "good": b"y", "noise": os.urandom(100_000)})
    with unpacked_archive(path, ArchiveLimits(ratio_floor_bytes=1_000_000)) as unpacked:
        assert list(files_of(unpacked)) == ["good", "noise"]
        assert "decompression bomb" in unpacked.damaged[0].reason


@pytest.mark.parametrize("make", [make_zip, lambda path, members: make_tar(path, members, "w:gz")])
def test_total_is_counted_on_what_comes_out(tmp_path, make):
    path = make(tmp_path / "a", {str(n): os.urandom(1000) * 100 for n in range(30)})
    with pytest.raises(UnsafeArchive, match="unpacks to more than 1000000 bytes"):
        unpack_archive(path, tmp_path, ArchiveLimits(max_total_bytes=1_000_000))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_tar_bomb_is_refused_in_time(tmp_path, pack):
    entry = tarfile.TarInfo("bomb")
    entry.size = 2**40
    (tmp_path / "a.tar.x").write_bytes(pack(entry.tobuf() + bytes(2**26)))
    start, limits = time.monotonic(), ArchiveLimits(ratio_floor_bytes=2**25)
    with pytest.raises(UnsafeArchive, match="unpacks to more than"), unpacked_archive(tmp_path / "a.tar.x", limits):
        pass
    assert time.monotonic() - start < 20


def test_size_in_a_header_is_not_believed(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"bomb": bytes(2_000_000)})
    data = path.read_bytes().replace(struct.pack("<I", 2_000_000), struct.pack("<I", 20))
    path.write_bytes(data)
    with unpacked_archive(path, ArchiveLimits(ratio_floor_bytes=1_000)) as unpacked:
        assert files_of(unpacked) == {}
        assert len(unpacked.damaged) == 1


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_number_of_files_is_bounded(tmp_path, make):
    path = make(tmp_path / "a", {str(n): b"" for n in range(11)})
    with unpacked_archive(path, ArchiveLimits(max_members=11)) as unpacked:
        assert len(files_of(unpacked)) == 11
    with (
        pytest.raises(UnsafeArchive, match="more than 10 files"),
        unpacked_archive(path, ArchiveLimits(max_members=10)),
    ):
        pass


def test_zip_directory_larger_than_the_file_is_damage(tmp_path):
    path = make_zip(tmp_path / "a.zip", MEMBERS)
    data = bytearray(path.read_bytes())
    data[-10:-6] = b"\xf0\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="larger than the file"), unpacked_archive(path):
        pass


def test_zip_directory_larger_than_its_files_need_is_refused_unread(tmp_path):
    path = make_zip(tmp_path / "a.zip", {f"{n}{'x' * 200}": b"" for n in range(100)})
    with pytest.raises(UnsafeArchive, match="directory of"), unpacked_archive(path, ArchiveLimits(max_members=50)):
        pass


def test_nested_archives_become_folders_up_to_the_depth(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", {"x.dcm": b"deep"}).read_bytes()
    for level in range(3):
        inner = make_tar(tmp_path / f"{level}.tar", {f"{level}.zip": inner, f"{level}.txt": b"t"}).read_bytes()
        inner = make_zip(tmp_path / f"{level}.zip", {f"{level}.tar": inner}).read_bytes()
    (tmp_path / "top.zip").write_bytes(inner)
    with unpacked_archive(tmp_path / "top.zip") as unpacked:
        assert sorted(files_of(unpacked)) == ["2.tar/2.txt"]
        assert unpacked.notes == ("archive: passed over 1 archives nested more than 2 deep",)
    with unpacked_archive(tmp_path / "top.zip", ArchiveLimits(max_depth=9)) as unpacked:
        assert "2.tar/2.zip/1.tar/1.zip/0.tar/0.zip/x.dcm" in files_of(unpacked)


def test_endless_names_in_a_tar_take_no_memory(tmp_path):
    entry = tarfile.TarInfo("long")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 2**40
    (tmp_path / "a.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with unpacked_archive(tmp_path / "a.tar") as unpacked:
        assert "a name or attribute of" in unpacked.damaged[0].reason


def test_chain_of_long_names_is_no_crash(tmp_path):
    entry = tarfile.TarInfo("long")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 4
    (tmp_path / "a.tar").write_bytes((entry.tobuf(tarfile.GNU_FORMAT) + b"abc\0".ljust(512, b"\0")) * 5000)
    with unpacked_archive(tmp_path / "a.tar") as unpacked:
        assert len(unpacked.damaged) == 1


# scans in archives


@pytest.mark.parametrize("name", ["scan.zip", "scan"])
def test_dicom_series_in_a_zip_is_read_like_its_folder(tmp_path, name):
    write_series(tmp_path / "series" / "ct")
    path = zip_folder(tmp_path / name, tmp_path / "series")
    folder, archive = read_scan(tmp_path / "series"), read_scan(path)
    assert archive.case_id == folder.case_id
    np.testing.assert_array_equal(archive.geometry.affine, folder.geometry.affine)
    np.testing.assert_array_equal(load_volume(archive).array, load_volume(folder).array)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_volume_in_an_archive_is_named_by_its_path_there(tmp_path, suffix):
    make = {".nii.gz": lambda path: save(VOXELS, path), ".nrrd": write_nrrd, ".mha": write_meta}[suffix]
    data = make(tmp_path / f"scan{suffix}").read_bytes()
    path = make_tar(tmp_path / "a.tgz", {f"p07/pet/scan{suffix}": data, "p07/note.txt": b"x"}, "w:gz")
    scan = read_scan(path)
    assert scan.case_id == "p07/pet/scan"
    np.testing.assert_array_equal(load_volume(scan).array[0], VOXELS)


def test_detached_voxels_in_an_archive_are_found(tmp_path):
    header = write_nrrd(tmp_path / "a.nhdr", b"", data_file="a.raw").read_bytes()
    path = make_zip(tmp_path / "a.zip", {"p/a.nhdr": header, "p/a.raw": payload()})
    np.testing.assert_array_equal(load_volume(read_scan(path)).array[0], VOXELS)


def test_series_that_may_have_lost_a_slice_is_refused(tmp_path):
    files = write_series(tmp_path / "series", n_slices=5)
    members = {file.name: file.read_bytes() for file in files}
    path = make_zip(tmp_path / "a.zip", members, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    last = data.rindex(b"DICM", 0, data.index(b"PK\x01\x02"))
    data[last + 400] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=r"a\.zip: 1 file\(s\) could not be unpacked: 001 \(Bad CRC"):
        read_scan(path)


def test_damage_beside_a_single_volume_does_no_harm(tmp_path):
    volume = save(VOXELS, tmp_path / "scan.nii").read_bytes()
    path = make_zip(tmp_path / "a.zip", {"note.txt": b"x" * 99, "scan.nii": volume}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"xxxx", b"yyyy", 1))
    assert read_scan(path).case_id == "scan"


def test_notes_of_the_archive_go_with_the_scan_and_name_nobody(tmp_path):
    """Neither the archive nor a member is named: both may be called after the patient."""
    path = tmp_path / "CANARY^JANE.zip"
    make_zip(path, {"CON/scan.nii": save(VOXELS, tmp_path / "x.nii").read_bytes(), "CANARY.txt": b"t"})
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("CANARY link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        packed_otherwise = zipfile.ZipInfo("CANARY.doc")
        packed_otherwise.compress_type = zipfile.ZIP_BZIP2
        archive.writestr(packed_otherwise, b"t")
    expected = (
        "archive: passed over 1 links",
        "archive: gave 1 file(s) other names, for theirs are not safe",
        "archive: could not unpack 1 file(s)",
    )
    scan = read_scan([path, path])
    (found,) = find_scans(path)
    assert scan.notes == found.notes == expected
    assert load_volume(scan).notes[:3] == expected


def test_errors_name_the_archive_and_not_the_temporary_folder(tmp_path):
    data = save(VOXELS, tmp_path / "scan.nii").read_bytes()
    path = make_zip(tmp_path / "two.zip", {"a.nii": data, "b.nii": data})
    with pytest.raises(AmbiguousSeries, match=r"two\.zip holds 2 volume file") as told:
        read_scan(path)
    assert "medseg-archive-" not in str(told.value)
    empty = make_zip(tmp_path / "none.zip", {"a.txt": b"x"})
    with pytest.raises(ScanNotFound, match=r"none\.zip holds no DICOM image"):
        read_scan(empty)


def test_tar_that_goes_on_after_its_end_is_reported(tmp_path):
    first = make_tar(tmp_path / "a.tar", {"1": b"x"}).read_bytes()
    (tmp_path / "two.tar").write_bytes(first + first)
    with unpacked_archive(tmp_path / "two.tar") as unpacked:
        assert "goes on after its end mark" in unpacked.damaged[0].reason


def _folder_in_a_worker(path):
    return str(unpack_until_exit(path).folder)


def test_archive_unpacked_in_a_worker_is_removed_with_the_worker(tmp_path):
    path = make_zip(tmp_path / "a.zip", MEMBERS)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        folder = pool.apply(_folder_in_a_worker, (path,))
        assert Path(folder).is_dir()
        pool.close()
        pool.join()
    assert not Path(folder).exists()


def test_archive_is_unpacked_once_and_removed_at_exit(tmp_path):
    path = make_zip(tmp_path / "a.zip", MEMBERS)
    assert unpack_until_exit(path) is unpack_until_exit(path)
    code = (
        "import sys; from medseg.io.archive import unpack_until_exit;"
        "folder = unpack_until_exit(sys.argv[1]).folder; assert folder.is_dir(); print(folder)"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert not Path(shown.stdout.strip()).exists()


def test_a_zip64_that_is_stored_inside_does_not_stand_for_the_zip_around_it(tmp_path):
    # 100 kB of stored content before the end: what the inner zip says of itself lies in the outer one's last bytes
    with zipfile.ZipFile(tmp_path / "inner.pt", "w", allowZip64=True) as inner:
        inner.writestr("a", b"x")
    content = bytearray((tmp_path / "inner.pt").read_bytes())
    end = content.rfind(b"PK\x05\x06")
    record = b"PK\x06\x06" + (44).to_bytes(8, "little") + bytes(12) + (36).to_bytes(8, "little") * 2 + bytes(16)
    locator = b"PK\x06\x07" + bytes(16)
    (tmp_path / "inner.pt").write_bytes(content[:end] + record + locator + content[end:])
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        outer.write(tmp_path / "inner.pt", "model.pt")
    with unpacked_archive(tmp_path / "outer.zip") as unpacked:
        assert unpacked.damaged == ()
        assert sorted(files_of(unpacked)) == ["model.pt"]
