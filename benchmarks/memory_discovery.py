"""`medseg inspect` on a tree of 100,000 mixed files: seconds and peak memory.

    python benchmarks/memory_discovery.py [--files 100000] [--rounds 3]

The tree: slices of many CT and PET series, NIfTI volumes, text, rubbish, empty and hidden files, and damaged slices.
The voxels of the images are holes in sparse files: hundreds of times the memory that is used, which shows that none is
read. The command runs as a process of its own, start-up included.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

SIDE = 512
SLICES_A_SERIES = 150
SERIES_A_STUDY = 3
UID, HEIGHT = "1.2.826.0.1.1000000000", "0000.0"  # as wide as what replaces them
SHARES = {"slice": 0.90, "nifti": 0.02, "text": 0.03, "rubbish": 0.02, "empty": 0.01, "hidden": 0.01, "damaged": 0.01}


def slice_header(series: int, study_uid: str) -> bytes:
    """The bytes of a slice up to its pixels, with `UID` and `HEIGHT` where those of each slice go."""
    is_pet = series % SERIES_A_STUDY == 1
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage if is_pet else CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID
    tags = pydicom.Dataset()
    tags.file_meta = meta
    tags.SOPClassUID, tags.SOPInstanceUID = meta.MediaStorageSOPClassUID, UID
    tags.StudyInstanceUID, tags.SeriesInstanceUID, tags.FrameOfReferenceUID = study_uid, generate_uid(), study_uid
    tags.Modality, tags.SeriesNumber = "PT" if is_pet else "CT", series % SERIES_A_STUDY + 1
    tags.SeriesDescription, tags.PatientName, tags.PatientID = "Thorax", "CANARY^JANE", "CANARY-007"
    tags.ImageType, tags.AcquisitionTime = ["ORIGINAL", "PRIMARY", "AXIAL"], "120000.000"
    tags.Rows = tags.Columns = SIDE
    tags.PixelSpacing, tags.SliceThickness = [0.8, 0.8], 2.0
    tags.ImageOrientationPatient, tags.ImagePositionPatient = [1, 0, 0, 0, 1, 0], f"-204.4\\-204.4\\{HEIGHT}"
    tags.SamplesPerPixel, tags.PhotometricInterpretation = 1, "MONOCHROME2"
    tags.BitsAllocated, tags.BitsStored, tags.HighBit, tags.PixelRepresentation = 16, 16, 15, 1
    tags.RescaleSlope, tags.RescaleIntercept = 1, -1024
    tags.PixelData = bytes(SIDE * SIDE * 2)
    stream = BytesIO()
    tags.save_as(stream, enforce_file_format=True)
    return stream.getvalue()[: -SIDE * SIDE * 2]


def slices() -> Iterator[tuple[str, bytes, int]]:
    """Name, first bytes and size of one slice after the other, series by series."""
    series, study = 0, ""
    while True:
        study = study if series % SERIES_A_STUDY else generate_uid()
        header = slice_header(series, study)
        folder = f"study_{series // SERIES_A_STUDY:05d}/series_{series % SERIES_A_STUDY}"
        for number in range(SLICES_A_SERIES):
            uid = f"{UID[:-10]}{series * SLICES_A_SERIES + number + 10**9:010d}"
            head = header.replace(UID.encode(), uid.encode()).replace(HEIGHT.encode(), f"{2 * number:06.1f}".encode())
            yield f"{folder}/IM{number:04d}", head, len(head) + SIDE * SIDE * 2
        series += 1


def others(kind: str) -> Iterator[tuple[str, bytes, int]]:
    """Name, first bytes and size of files of another kind."""
    rng = np.random.default_rng(0)
    volume = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()[:352]
    large = bytearray(volume)
    large[42:48] = np.array([SIDE, SIDE, 200], "<i2").tobytes()
    known = {
        "nifti": (".nii", bytes(large), 352 + SIDE * SIDE * 200 * 2),
        "text": (".txt", b"patient moved during the scan\n" * 20, 600),
        "empty": ("", b"", 0),
        "damaged": ("", slice_header(0, generate_uid())[:600], 600),
    }
    number = 0
    while True:
        suffix, head, size = known.get(kind, ("", rng.bytes(500), 500))
        dot = "." if kind == "hidden" else ""
        yield f"{kind}_{number // 200:03d}/{dot}{kind}{number:06d}{suffix}", head, size
        number += 1


def write_tree(root: Path, n_files: int) -> int:
    """Write the files; returns the bytes of voxels that they promise."""
    n_voxel_bytes = 0
    for kind, share in SHARES.items():
        for name, head, size in islice(slices() if kind == "slice" else others(kind), round(share * n_files)):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.write(head)
                file.truncate(size)
            n_voxel_bytes += size - len(head)
    return n_voxel_bytes


def inspect(root: Path) -> dict[str, float]:
    """Seconds, processor seconds and peak MiB of `medseg inspect`, and how many volumes it found."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "medseg", "inspect", "--json", "--quiet", str(root)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        output.seek(0)
        told = json.loads(output.read())
    if process.returncode or b"CANARY" in json.dumps(told).encode():
        raise RuntimeError(f"medseg inspect failed (exit {process.returncode}), or named the patient")
    return {
        "seconds": seconds,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
        "n_readable": told["n_readable"],
        "n_listed": len(told["scans"]),
    }


def main() -> None:
    """Write the tree, look through it several times, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medseg-discovery-") as folder:
        n_voxel_bytes = write_tree(Path(folder), arguments.files)
        runs = [inspect(Path(folder)) for _ in range(arguments.rounds)]
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    print(f"{arguments.files} files, {n_voxel_bytes / 2**30:.0f} GiB of voxels, median of {arguments.rounds}")
    print(f"{median['n_readable']:.0f} of {median['n_listed']:.0f} listed can be read")
    print(
        f"{median['seconds']:.1f} s ({median['cpu_s']:.1f} s of processor), peak {median['peak_mib']:.0f} MiB, "
        f"{median['seconds'] / arguments.files * 1e6:.0f} microseconds a file"
    )


if __name__ == "__main__":
    main()
