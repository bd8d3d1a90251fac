"""Small DICOM series made on disk, with known pixels and a known place in the patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

from medseg.core.volume import Volume
from medseg.io.scan import load_volume, read_scan

Edit = Callable[[Dataset, int], object]

ROWS, COLUMNS = 5, 7
STUDY_UID, SERIES_UID = "1.2.826.0.1.1", "1.2.826.0.1.1.7"


def stored_pixels(n_slices: int) -> NDArray[np.int16]:
    """(column, row, slice) int16, every voxel another number."""
    return np.arange(COLUMNS * ROWS * n_slices, dtype=np.int16).reshape(COLUMNS, ROWS, n_slices)


def write_series(
    folder: Path,
    n_slices: int = 4,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    step: tuple[float, float, float] = (0.0, 0.0, 3.0),
    edit: Edit | None = None,
    modality: str = "CT",
) -> list[Path]:
    """Write slices of 2.0 mm (rows) by 1.5 mm (columns); names and instance numbers run against the positions.

    `edit(dataset, k)` changes slice k before it is written. Returns the files in slice order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixels = stored_pixels(n_slices)
    paths = []
    for k in range(n_slices):
        dataset = _slice(modality, pixels[:, :, k].T)
        dataset.ImagePositionPatient = [float(p) for p in np.array((-10.0, -20.0, 30.0)) + k * np.array(step)]
        dataset.ImageOrientationPatient = list(orientation)
        dataset.InstanceNumber = (k * 7) % n_slices + 1
        if edit is not None:
            edit(dataset, k)
        paths.append(folder / f"{n_slices - k:03d}")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def one_slice(folder: Path, edit: Edit | None = None) -> Path:
    """A file with one slice."""
    return write_series(folder / "series", n_slices=1, edit=edit)[0]


def set_tag(keyword: str, value: object, slices: Sequence[int] | None = None) -> Edit:
    """An edit that sets a tag, or deletes it if the value is None, in all slices or some."""

    def edit(dataset: Dataset, k: int) -> None:
        if slices is None or k in slices:
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edit


def all_edits(*edits: Edit) -> Edit:
    """Several edits, one after the other."""

    def edit(dataset: Dataset, k: int) -> None:
        for each in edits:
            each(dataset, k)

    return edit


def shift_slice(number: int, by: tuple[float, float, float]) -> Edit:
    """An edit that moves one slice by millimeters (LPS)."""

    def edit(dataset: Dataset, k: int) -> None:
        if k == number:
            dataset.ImagePositionPatient = [float(p) + d for p, d in zip(dataset.ImagePositionPatient, by, strict=True)]

    return edit


def without_preamble(path: Path, syntax: str) -> Path:
    """The same file without preamble and file meta information."""
    dataset = dcmread(path)
    bare = Dataset()
    bare.update({element.tag: element for element in dataset})
    bare.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True, enforce_file_format=False)
    return path


def loaded(path: Path, **options: Any) -> Volume:
    """The volume at a path."""
    return load_volume(read_scan(path, **options))


def expected_affine(
    n_slices: int = 4, orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0), step: tuple[float, ...] = (0.0, 0.0, 3.0)
) -> NDArray[np.float64]:
    """The RAS+ affine of a series from `write_series` whose steps go along its normal, written out by hand."""
    lps = np.eye(4)
    lps[:3, 0] = np.array(orientation[:3]) * 1.5
    lps[:3, 1] = np.array(orientation[3:]) * 2.0
    lps[:3, 2] = step
    lps[:3, 3] = (-10.0, -20.0, 30.0)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def add_pet_tags(dataset: Dataset) -> None:
    """A dose of 370 MBq one half-life before the scan, in 74 kg: 2,500 Bq/ml are SUV 1."""
    drug = Dataset()
    drug.RadionuclideTotalDose = 370e6
    drug.RadionuclideHalfLife = 6600.0
    drug.RadiopharmaceuticalStartTime = "101000"
    dataset.RadiopharmaceuticalInformationSequence = [drug]
    dataset.Units = "BQML"
    dataset.DecayCorrection = "START"
    dataset.CorrectedImage = ["ATTN", "DECY"]
    dataset.PatientWeight = 74.0
    dataset.SeriesDate = dataset.AcquisitionDate = "20240229"
    dataset.SeriesTime = dataset.AcquisitionTime = "120000"


def _slice(modality: str, pixels: NDArray[np.int16]) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage if modality == "PT" else CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, SERIES_UID
    dataset.FrameOfReferenceUID = "1.2.826.0.1.9"
    dataset.PatientName, dataset.PatientID = "CANARY^NAME", "CANARYID"
    dataset.Modality, dataset.SeriesNumber, dataset.SeriesDescription = modality, 3, "thin slices"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = [2.0, 1.5]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = 2.0, -1000.0
    dataset.PixelData = np.ascontiguousarray(pixels, dtype="<i2").tobytes()
    return dataset
