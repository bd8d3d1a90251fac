"""One reader, two doors: LoadScand and MONAI's LoadImaged with MedsegReader."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged

from medseg.core.volume import Volume
from medseg.errors import ScanNotFound
from medseg.io.scan import load_volume, read_scan
from medseg.transforms.border import geometry_of
from medseg.transforms.load import LoadScand, MedsegReader
from tests.io.dicom_files import write_series


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    affine = np.array([[0.0, -2.0, 0.0, 10.0], [1.5, 0.0, 0.0, -20.0], [0.0, 0.0, 3.0, 5.0], [0, 0, 0, 1]])
    array = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def same(path: Path, tensor: object, volume: Volume) -> None:
    np.testing.assert_array_equal(np.asarray(tensor.as_tensor()), volume.array)
    np.testing.assert_allclose(geometry_of(tensor).affine, nib.load(path).affine, atol=1e-6)


def test_both_doors_give_the_same_voxels_and_affine(nifti: Path) -> None:
    volume = load_volume(read_scan(nifti))
    same(nifti, LoadScand("image")({"image": nifti})["image"], volume)
    through_monai = LoadImaged("image", reader=MedsegReader(), ensure_channel_first=True)({"image": nifti})["image"]
    same(nifti, through_monai, volume)
    monais_own = LoadImaged("image", reader="NibabelReader", ensure_channel_first=True)({"image": nifti})["image"]
    same(nifti, monais_own, volume)


def test_scan_path_and_volume_are_all_taken(nifti: Path) -> None:
    scan = read_scan(nifti)
    volume = load_volume(scan)
    for source in (scan, nifti, str(nifti), [nifti], volume):
        loaded = Compose([LoadScand("image")])({"image": source})
        same(nifti, loaded["image"], volume)
        np.testing.assert_array_equal(loaded["volume"].array, volume.array)


def test_several_paths_become_channels(nifti: Path) -> None:
    loaded = LoadScand("image", volume_key=None)({"image": [nifti, nifti]})
    assert tuple(loaded["image"].shape) == (2, 6, 5, 4)
    assert set(loaded) == {"image"}
    through_monai = LoadImaged("image", reader=MedsegReader(), ensure_channel_first=True)({"image": [nifti, nifti]})
    np.testing.assert_array_equal(np.asarray(through_monai["image"]), np.asarray(loaded["image"]))


@pytest.mark.parametrize("step", [(0.0, 0.0, 3.0), (0.3, 0.8, 3.0)], ids=["straight", "sheared"])
def test_dicom_series_loads_through_both_doors(tmp_path: Path, step: tuple[float, float, float]) -> None:
    write_series(tmp_path, step=step)
    volume = load_volume(read_scan(tmp_path))
    ours = LoadScand("image")({"image": tmp_path})["image"]
    monai = LoadImaged("image", reader=MedsegReader(), ensure_channel_first=True)({"image": tmp_path})["image"]
    for tensor in (ours, monai):
        np.testing.assert_array_equal(np.asarray(tensor.as_tensor()), volume.array)
        np.testing.assert_allclose(geometry_of(tensor).affine, volume.geometry.affine, atol=1e-9)


def test_missing_file_is_named() -> None:
    with pytest.raises(ScanNotFound, match=r"absent\.nii\.gz"):
        LoadScand("image")({"image": "absent.nii.gz"})


@pytest.mark.real_data
def test_dicom_folder_loads_through_both_doors(real_data: Path) -> None:
    folder = real_data / "volumes" / "sts_dicom" / "STS_019" / "PET" / "image"
    volume = load_volume(read_scan(folder), units="suv")
    ours = LoadScand("image", units="suv")({"image": folder})["image"]
    monai = LoadImaged("image", reader=MedsegReader(units="suv"), ensure_channel_first=True)({"image": folder})["image"]
    for tensor in (ours, monai):
        np.testing.assert_array_equal(np.asarray(tensor.as_tensor()), volume.array)
        np.testing.assert_allclose(geometry_of(tensor).affine, volume.geometry.affine, atol=1e-9)
