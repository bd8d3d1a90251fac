"""`medseg separate`."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import medseg
from medseg.inference.segmenter import Segmenter
from tests.cli.commands import assert_one_clear_error, run, run_well
from tests.inference.test_evidence import KnowsTheWay, plan, two_touching
from tests.io.nifti_files import AFFINE, save


@pytest.fixture
def semantic_file(tmp_path: Path) -> Path:
    """Two classes; two boxes of class 1 that touch at a corner only, one of class 4."""
    array = np.zeros((20, 20, 10), dtype=np.uint8)
    array[2:6, 2:6, 2:6] = 1
    array[6:9, 6:9, 6:9] = 1
    array[14:16, 14:16, 4:6] = 4
    return save(array, tmp_path / "semantic.nii.gz")


def _n_lesions(*arguments: object) -> int:
    return int(json.loads(run_well("separate", *arguments, "--json", "--quiet").stdout)["n_lesions"])


def test_the_map_is_numbered_by_volume_on_the_same_grid(tmp_path: Path, semantic_file: Path) -> None:
    result = run_well("separate", semantic_file, "-o", tmp_path / "lesions.nii.gz", "--connectivity", "6")
    lesions = nib.load(tmp_path / "lesions.nii.gz")
    numbers = np.asarray(lesions.dataobj)
    assert [int((numbers == n).sum()) for n in (1, 2, 3)] == [64, 27, 8]
    np.testing.assert_array_equal(lesions.affine, AFFINE)
    assert "3 lesion(s)" in result.stdout


@pytest.mark.parametrize(("connectivity", "n_lesions"), [(6, 3), (18, 3), (26, 2)])
def test_corner_contact_joins_at_26_only(
    tmp_path: Path, semantic_file: Path, connectivity: int, n_lesions: int
) -> None:
    output = tmp_path / "out.nii.gz"
    options = ["--method", "components", "--connectivity", connectivity]
    assert _n_lesions(semantic_file, "-o", output, *options) == n_lesions


def test_json_tells_classes_method_and_what_was_removed(tmp_path: Path, semantic_file: Path) -> None:
    output = tmp_path / "out.nii.gz"
    options = ["--method", "components", "--minimum-volume-ml", "0.1", "--json"]
    shown = json.loads(run_well("separate", semantic_file, "-o", output, *options).stdout)
    assert shown["classes"] == ["class_1"]
    assert (shown["method"], shown["n_removed"], shown["output"]) == ("components", 1, str(output))
    assert shown["removed_volume_ml"] == pytest.approx(8 * 9.0 / 1000.0)


def test_an_older_map_is_replaced_only_with_overwrite(tmp_path: Path, semantic_file: Path) -> None:
    output = tmp_path / "out.nii.gz"
    output.write_bytes(b"older")
    assert_one_clear_error(run("separate", semantic_file, "-o", output), 2, "--overwrite")
    assert output.read_bytes() == b"older"
    assert _n_lesions(semantic_file, "-o", output, "--overwrite") > 0
    assert output.read_bytes() != b"older"


def test_another_suffix_is_refused(tmp_path: Path, semantic_file: Path) -> None:
    assert_one_clear_error(run("separate", semantic_file, "-o", tmp_path / "out.png", "-q"), 2, ".nii.gz")


def test_a_map_of_fractions_is_no_label_map(tmp_path: Path) -> None:
    scan = save(np.full((4, 4, 4), 0.5, dtype=np.float32), tmp_path / "probability.nii.gz")
    assert_one_clear_error(run("separate", scan, "-o", tmp_path / "out.nii.gz", "-q"), 1, "whole numbers")
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.fixture
def case_with_evidence(tmp_path: Path) -> Path:
    """A case of two touching lesions, from a network with instance heads."""
    image, _ = two_touching()
    channels = [tmp_path / f"{n}.nii.gz" for n in range(len(image))]
    for channel, path in zip(image, channels, strict=True):
        nib.save(nib.Nifti1Image(channel, np.diag([4.0, 4.0, 4.0, 1.0])), path)
    segmenter = Segmenter(KnowsTheWay(), plan(), device="cpu", engine="torch")
    result = medseg.segment_case(medseg.read_scan(channels), segmenter)
    return medseg.write_case(result, tmp_path / "out", save_evidence=True)


@pytest.mark.parametrize("evidence", [".", "evidence.nii.gz"])
def test_saved_evidence_gives_the_lesions_of_the_case_again(
    tmp_path: Path, case_with_evidence: Path, evidence: str
) -> None:
    output = tmp_path / "again.nii.gz"
    arguments = [case_with_evidence / "semantic.nii.gz", "-o", output, "--evidence", case_with_evidence / evidence]
    shown = json.loads(run_well("separate", *arguments, "--json", "--quiet").stdout)
    assert (shown["method"], shown["n_lesions"]) == ("offsets", 2)
    assert output.read_bytes() == (case_with_evidence / "lesions.nii.gz").read_bytes()


def test_offsets_without_evidence_and_a_folder_without_it_are_told(tmp_path: Path, semantic_file: Path) -> None:
    output = tmp_path / "out.nii.gz"
    assert_one_clear_error(run("separate", semantic_file, "-o", output, "--method", "offsets", "-q"), 2, "--evidence")
    assert_one_clear_error(
        run("separate", semantic_file, "-o", output, "--evidence", tmp_path, "-q"), 2, "--save-evidence"
    )
