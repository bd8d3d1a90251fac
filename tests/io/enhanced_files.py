"""Small enhanced multi-frame files and Siemens mosaics made on disk, with known pixels and places."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, EnhancedPETImageStorage, MRImageStorage

from tests.io.dicom_files import one_slice

FrameEdit = Callable[[Dataset, int], object]
Places = list[tuple[float, float, float]]


def item(**tags: Any) -> list[Dataset]:
    """A sequence of one item."""
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return [dataset]


def write_enhanced(folder: Path, positions: Places, edit: FrameEdit | None = None) -> Path:
    """One file with a frame at each position (LPS), frame n holding n * 100 + 0..34; `edit(groups, n)` changes it."""
    path = one_slice(folder)
    dataset = dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    dataset.Modality, dataset.NumberOfFrames = "MR", len(positions)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(dataset, keyword)
    shared = Dataset()
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = item(PixelSpacing=[2.0, 1.5], SliceThickness=3.0)
    shared.PixelValueTransformationSequence = item(RescaleSlope=2.0, RescaleIntercept=-7.0)
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number, position in enumerate(positions):
        groups = Dataset()
        groups.PlanePositionSequence = item(ImagePositionPatient=list(position))
        groups.FrameContentSequence = item(StackID="1")
        if edit is not None:
            edit(groups, number)
        frames.append(groups)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.PixelData = frame_pixels(len(positions)).astype("<i2").tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_enhanced_pet(folder: Path, positions: Places, edit: FrameEdit | None = None) -> Path:
    """An enhanced PET in Bq/ml, two for a stored unit: 370 MBq, one half-life before the moment of correction, 74 kg.

    2,500 Bq/ml are SUV 1. `edit(groups, n)` changes the groups of frame n, `edit(dataset, -1)` the whole.
    """
    path = write_enhanced(folder, positions)
    dataset = dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedPETImageStorage
    dataset.Modality = "PT"
    dataset.CountsSource, dataset.DecayCorrected, dataset.AttenuationCorrected = "EMISSION", "YES", "YES"
    dataset.DecayCorrectionDateTime = "20240229120000"
    dataset.PatientWeight = 74.0
    dataset.RadiopharmaceuticalInformationSequence = item(
        RadionuclideTotalDose=370.0, RadionuclideHalfLife=6600.0, RadiopharmaceuticalStartDateTime="20240229101000"
    )
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PixelValueTransformationSequence = item(RescaleSlope=2.0, RescaleIntercept=0.0)
    shared.RealWorldValueMappingSequence = mapping("Bq/ml", 2.0)
    if edit is not None:
        edit(dataset, -1)
        for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            edit(groups, number)
    dataset.save_as(path, enforce_file_format=True)
    return path


def mapping(unit: str, slope: float, intercept: float = 0.0) -> list[Dataset]:
    """A real world value mapping of one item."""
    code = item(CodeValue=unit, CodingSchemeDesignator="UCUM", CodeMeaning=unit)
    return item(RealWorldValueSlope=slope, RealWorldValueIntercept=intercept, MeasurementUnitsCodeSequence=code)


def frame_pixels(n_frames: int) -> NDArray[np.int16]:
    """(frame, row, column) int16."""
    base = np.arange(35, dtype=np.int16).reshape(5, 7)
    return np.stack([base + np.int16(100 * n) for n in range(n_frames)])


def csa_header(entries: dict[str, list[str]]) -> bytes:
    """A CSA header of the newer form with these entries."""
    content = b"SV10\4\3\2\1" + struct.pack("<II", len(entries), 77)
    for name, items in entries.items():
        content += struct.pack("<64si4siii", name.encode(), len(items), b"FD\0\0", 4, len(items), 77)
        for text in items:
            data = text.encode() + b"\0"
            content += struct.pack("<4i", len(data), len(data), 77, len(data)) + data + b"\0" * (-len(data) % 4)
    return content


def write_mosaic(folder: Path, tiles: NDArray[np.int16], entries: dict[str, list[str]], step: float | None) -> Path:
    """A mosaic of (slice, row, column) tiles, with a CSA header of these entries."""
    n_slices, rows, columns = tiles.shape
    side = int(np.ceil(np.sqrt(n_slices)))
    mosaic = np.zeros((side * rows, side * columns), dtype="<i2")
    for n, tile in enumerate(tiles):
        row, column = divmod(n, side)
        mosaic[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns] = tile
    path = one_slice(folder)
    dataset = dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.Modality, dataset.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    dataset.Rows, dataset.Columns = mosaic.shape
    if step is not None:
        dataset.SpacingBetweenSlices = step
    dataset.PixelData = mosaic.tobytes()
    if entries:
        dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", csa_header(entries))
    dataset.save_as(path, enforce_file_format=True)
    return path
