"""Structure sets: valid, and the same voxels again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

import medseg
from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.scan import Scan
from medseg.dicom.rtstruct import read_rtstruct, structure_set
from medseg.errors import GridMismatch, InvalidLabelMap, UsageError
from medseg.io.regrid import lesions_on_grid
from tests.dicom.results import (
    ALGORITHM,
    COLORS,
    complaints,
    plane_orientations,
    saved,
    series,
    some_lesions,
    source_of,
    step_along,
)


@pytest.mark.parametrize("length", [3.0, -3.0])
@pytest.mark.parametrize("orientation", plane_orientations(), ids=str)
def test_lesions_come_back_voxel_for_voxel(orientation: tuple[int, ...], length: float, tmp_path: Path) -> None:
    scan = series(tmp_path / "ct", orientation=orientation, step=step_along(orientation, length))
    lesions = some_lesions(scan.geometry)
    path = saved(structure_set(lesions, source_of(scan), ALGORITHM, COLORS), tmp_path / "rt.dcm")
    back = medseg.read_lesions(path, like=scan.geometry)
    np.testing.assert_array_equal(back.array, lesions.array)
    assert back.lesions == lesions.lesions


def test_the_validator_has_nothing_to_say_and_a_second_run_writes_the_same(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct", step=(0.0, 0.8, 3.0))
    paths = [
        saved(structure_set(some_lesions(scan.geometry), source_of(scan), ALGORITHM, COLORS), tmp_path / f"{n}.dcm")
        for n in "ab"
    ]
    assert complaints(paths[0]) == []
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_contours_are_closed_planar_and_refer_to_their_slice(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    dataset = structure_set(some_lesions(scan.geometry), source_of(scan), ALGORITHM, COLORS)
    uids = {float(dcmread(path).ImagePositionPatient[2]): dcmread(path).SOPInstanceUID for path in scan.files[0]}
    for region in dataset.ROIContourSequence:
        for contour in region.ContourSequence:
            points = np.reshape(contour.ContourData, (-1, 3)).astype(float)
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            assert len(points) == contour.NumberOfContourPoints >= 4
            assert np.ptp(points[:, 2]) == 0
            assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == uids[points[0, 2]]
            assert all(len(str(text)) <= 16 for text in contour.ContourData)


@pytest.fixture
def sponge(tmp_path: Path) -> tuple[Scan, LesionMap]:
    """A slice of 64 x 64 pixels, and a lesion with so many holes that its contour takes more than 64 KB."""

    def edit(dataset: Dataset, k: int) -> None:
        dataset.Rows = dataset.Columns = 64
        dataset.PixelData = bytes(2 * 64 * 64)

    scan = series(tmp_path / "ct", edit=edit)
    array = np.zeros(scan.geometry.shape, dtype=np.uint16)
    array[1:64, 1:64, 2] = 1
    array[2:63:2, 2:63:2, 2] = 0
    return scan, LesionMap(array, scan.geometry, (Lesion("lesion"),))


def test_a_contour_of_more_than_64_kb_stays_one(tmp_path: Path, sponge: tuple[Scan, LesionMap]) -> None:
    scan, lesions = sponge
    path = saved(structure_set(lesions, source_of(scan), ALGORITHM, COLORS), tmp_path / "rt.dcm")
    (contour,) = dcmread(path).ROIContourSequence[0].ContourSequence
    assert len("\\".join(map(str, contour.ContourData))) > 2**16
    assert complaints(path) == []
    np.testing.assert_array_equal(medseg.read_lesions(path, like=scan.geometry).array, lesions.array)


def test_a_contour_that_another_maker_stored_without_its_type_is_read(
    tmp_path: Path, sponge: tuple[Scan, LesionMap]
) -> None:
    scan, lesions = sponge
    dataset = structure_set(lesions, source_of(scan), ALGORITHM, COLORS)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with pytest.warns(UserWarning, match="exceeds the size of 64 kByte"):
        path = saved(dataset, tmp_path / "rt.dcm")
    assert isinstance(dcmread(path).ROIContourSequence[0].ContourSequence[0].ContourData, bytes)
    np.testing.assert_array_equal(medseg.read_lesions(path, like=scan.geometry).array, lesions.array)


def test_contours_need_a_grid(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    path = saved(structure_set(some_lesions(scan.geometry), source_of(scan), ALGORITHM, COLORS), tmp_path / "rt.dcm")
    with pytest.raises(UsageError, match="--scan or --like"):
        medseg.read_lesions(path)
    affine = scan.geometry.affine.copy()
    affine[2, 3] += 1.5
    with pytest.raises(GridMismatch, match=r"Lesion 1.*0\.5 voxels beside the slices"):
        medseg.read_lesions(path, like=Geometry(scan.geometry.shape, affine))
    affine[2, 3] += 90.0
    with pytest.raises(GridMismatch, match="beyond the grid"):
        medseg.read_lesions(path, like=Geometry(scan.geometry.shape, affine))


def test_a_map_whose_axes_run_otherwise_takes_the_contours_too(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    lesions = some_lesions(scan.geometry)
    path = saved(structure_set(lesions, source_of(scan), ALGORITHM, COLORS), tmp_path / "rt.dcm")
    affine = scan.geometry.affine[:, [2, 0, 1, 3]].copy()
    turned = Geometry(tuple(scan.geometry.shape[n] for n in (2, 0, 1)), affine)
    np.testing.assert_array_equal(medseg.read_lesions(path, like=turned).array, lesions.array.transpose(2, 0, 1))


def test_regions_that_share_voxels_are_refused_or_read_one_by_one(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    dataset = structure_set(some_lesions(scan.geometry), source_of(scan), ALGORITHM, COLORS)
    dataset.ROIContourSequence[0].ContourSequence = dataset.ROIContourSequence[1].ContourSequence
    with pytest.raises(InvalidLabelMap, match=r"share 8 voxels.*--roi"):
        read_rtstruct(dataset, "rt.dcm", scan.geometry)
    read = read_rtstruct(dataset, "rt.dcm", scan.geometry, ["Lesion 2"])
    assert (read.array == 2).sum() == 8
    assert read.names == {2: "metastasis"}


def test_no_lesion_makes_no_structure_set(tmp_path: Path) -> None:
    scan = series(tmp_path / "ct")
    empty = LesionMap(np.zeros(scan.geometry.shape, dtype=np.uint16), scan.geometry, ())
    with pytest.raises(InvalidLabelMap, match="no lesion"):
        structure_set(empty, source_of(scan), ALGORITHM, COLORS)


@pytest.mark.real_data
def test_the_contours_of_a_patient_are_filled_as_their_makers_filled_them(real_data: Path) -> None:
    patient = real_data / "volumes" / "sts_dicom" / "STS_019" / "PET"
    reference = real_data / "volumes" / "sts" / "STS_019" / "PET_mask.nii.gz"
    scan = medseg.read_scan(patient / "image")
    (path,) = (patient / "mask").iterdir()
    names = [item.ROIName for item in dcmread(path).StructureSetROISequence]
    (name,) = [name for name in names if name.endswith("PET")] if len(names) > 1 else names
    read = medseg.read_lesions(path, like=scan.geometry, only=[name])
    made = lesions_on_grid(medseg.read_lesions(reference), scan.geometry, str(reference))
    both = int(((read.array > 0) & (made.array > 0)).sum())
    assert 2 * both / int((read.array > 0).sum() + (made.array > 0).sum()) > 0.98
