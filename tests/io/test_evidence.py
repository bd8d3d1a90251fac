"""Evidence files: four values a voxel, the same when they are read back."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.errors import InvalidLabelMap, ScanNotFound, UnreadableImage, UnsupportedDimensions
from medseg.io.evidence import read_evidence, write_evidence


@pytest.fixture
def evidence() -> InstanceEvidence:
    """Float16, on an oblique grid whose numbers float32 does not hold."""
    random = np.random.default_rng(0)
    turn = np.deg2rad(17.0)
    affine = np.diag([1.1, 0.7, 3.3, 1.0])
    affine[:2, :2] = [[1.1 * np.cos(turn), -0.7 * np.sin(turn)], [1.1 * np.sin(turn), 0.7 * np.cos(turn)]]
    affine[:3, 3] = [-123.456789, 1 / 3, 987.654321]
    shape = (5, 7, 3)
    heads = random.normal(size=(4, *shape)).astype(np.float16)
    return InstanceEvidence(heads[0], heads[1:], Geometry(shape, affine))


@pytest.mark.parametrize("name", ["evidence.nii.gz", "heads.nii"])
def test_what_is_written_is_read_back_to_the_bit(tmp_path, evidence, name):
    write_evidence(evidence, tmp_path / name)
    read = read_evidence(tmp_path / name)
    np.testing.assert_array_equal(read.center, evidence.center)
    np.testing.assert_array_equal(read.offsets_mm, evidence.offsets_mm)
    np.testing.assert_array_equal(read.geometry.affine, evidence.geometry.affine)
    assert read.geometry.shape == evidence.geometry.shape


def test_other_programs_see_vectors_that_say_what_they_are(tmp_path, evidence):
    write_evidence(evidence, tmp_path / "evidence.nii.gz")
    image = nib.load(tmp_path / "evidence.nii.gz")
    assert image.shape == (5, 7, 3, 1, 4)
    assert image.header.get_intent()[::2] == ("vector", "medseg evidence")
    np.testing.assert_array_equal(np.asarray(image.dataobj)[..., 0, 2], evidence.offsets_mm[1])


def test_a_folder_stands_for_the_file_in_it(tmp_path, evidence):
    write_evidence(evidence, tmp_path / "evidence.nii.gz")
    np.testing.assert_array_equal(read_evidence(tmp_path).center, evidence.center)
    (tmp_path / "evidence.nii.gz").unlink()
    with pytest.raises(ScanNotFound, match="save-evidence"):
        read_evidence(tmp_path)


def test_a_volume_is_no_evidence(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), dtype=np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(UnsupportedDimensions, match=r"\(4, 4, 4\).*1, 4"):
        read_evidence(tmp_path / "scan.nii.gz")


def test_a_cut_file_and_nan_are_refused(tmp_path, evidence):
    whole = tmp_path / "evidence.nii"
    write_evidence(evidence, whole)
    (tmp_path / "cut.nii").write_bytes(whole.read_bytes()[:-5])
    with pytest.raises(UnreadableImage, match="truncated"):
        read_evidence(tmp_path / "cut.nii")
    offsets = np.array(evidence.offsets_mm)
    offsets[0, 0, 0, 0] = np.nan
    write_evidence(InstanceEvidence(evidence.center, offsets, evidence.geometry), whole)
    with pytest.raises(InvalidLabelMap, match="NaN"):
        read_evidence(whole)
