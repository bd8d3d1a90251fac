"""`medseg segment` on real PET scans, from NIfTI and from DICOM."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from tests.cli.commands import run_well

pytestmark = pytest.mark.real_data


@pytest.fixture
def sarcoma(real_data: Path) -> Path:
    folder = real_data / "volumes"
    if not (folder / "sts_dicom" / "STS_019").is_dir():
        pytest.skip(f"no sarcoma scans in {folder}")
    return folder


def test_maps_lie_on_the_grid_of_the_scan_bit_for_bit(tmp_path: Path, sarcoma: Path, tiny_bundle: Path) -> None:
    scan_file = sarcoma / "sts" / "STS_003" / "PET_image.nii.gz"
    run_well("segment", scan_file, "--model", tiny_bundle, "-o", tmp_path / "out", "-q")
    scan = nib.load(scan_file)
    table = pd.read_csv(tmp_path / "out" / "lesions.csv")
    maps = {name: nib.load(tmp_path / "out" / f"{name}.nii.gz") for name in ("semantic", "lesions")}
    for image in maps.values():
        assert image.shape == scan.shape
        assert image.affine.tobytes() == scan.affine.tobytes()
    numbers = np.asarray(maps["lesions"].dataobj)
    assert np.unique(numbers[numbers > 0]).tolist() == list(range(1, len(table) + 1))
    n_semantic = int(np.count_nonzero(np.asarray(maps["semantic"].dataobj)))
    voxel_ml = float(np.prod(scan.header.get_zooms()[:3])) / 1000.0
    assert table["volume_ml"].sum() == pytest.approx(n_semantic * voxel_ml, rel=1e-5)


def test_dicom_and_nifti_of_one_scan_give_one_result(tmp_path: Path, sarcoma: Path, tiny_bundle: Path) -> None:
    sources = {
        "nifti": sarcoma / "sts" / "STS_019" / "PET_image.nii.gz",
        "dicom": sarcoma / "sts_dicom" / "STS_019" / "PET" / "image",
    }
    for name, source in sources.items():
        run_well("segment", source, "--model", tiny_bundle, "-o", tmp_path / name, "--case-id", "one", "-q")
    nifti, dicom = (pd.read_csv(tmp_path / name / "lesions.csv") for name in sources)
    # the two files differ by 1e-6 SUV: at most a voxel at the threshold
    np.testing.assert_allclose(dicom["volume_ml"], nifti["volume_ml"], rtol=0.01)
    np.testing.assert_allclose(dicom.filter(like="centroid"), nifti.filter(like="centroid"), atol=0.2)
