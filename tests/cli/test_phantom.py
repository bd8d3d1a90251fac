"""`medseg phantom`."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.cli.commands import assert_one_clear_error, files_below, run, run_well

FILES = ["lesions.nii.gz", "phantom.json", "scan.nii.gz"]


def test_scan_truth_and_description_agree(tmp_path: Path) -> None:
    result = run_well("phantom", "-o", tmp_path / "p", "--n-lesions", "3", "--seed", "4")
    assert sorted(files_below(tmp_path / "p")) == FILES
    lesions = np.asarray(nib.load(tmp_path / "p" / "lesions.nii.gz").dataobj)
    described = json.loads((tmp_path / "p" / "phantom.json").read_text())
    assert [lesion["n_voxels"] for lesion in described["lesions"]] == np.bincount(lesions.ravel())[1:].tolist()
    assert nib.load(tmp_path / "p" / "scan.nii.gz").shape == lesions.shape
    assert "3 lesion(s)" in result.stdout


def test_one_seed_gives_one_phantom(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run_well("phantom", "-o", tmp_path / name, "--n-lesions", "1", "--seed", seed, "-q")
    assert files_below(tmp_path / "a") == files_below(tmp_path / "b")
    assert files_below(tmp_path / "a") != files_below(tmp_path / "c")


def test_ct_with_touching_lesions(tmp_path: Path) -> None:
    arguments = ["phantom", "-o", tmp_path / "p", "--kind", "ct", "--touching", "--n-lesions", "2", "--json", "-q"]
    result = run_well(*arguments)
    shown = json.loads(result.stdout)
    assert (shown["kind"], shown["n_lesions"]) == ("ct", 2)
    assert {lesion["contact"] for lesion in shown["lesions"]} == {"touching"}
    assert result.stderr == ""


def test_an_older_phantom_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    arguments = ["phantom", "-o", tmp_path / "p", "--n-lesions", "1", "-q"]
    run_well(*arguments)
    before = files_below(tmp_path)
    assert_one_clear_error(run(*arguments), 2, "--overwrite")
    assert files_below(tmp_path) == before
    run_well(*arguments, "--overwrite", "--seed", "1")
    assert files_below(tmp_path) != before


def test_lesions_that_cannot_be_are_wrong_usage(tmp_path: Path) -> None:
    result = run("phantom", "-o", tmp_path / "p", "--touching", "--n-lesions", "1", "-q")
    assert_one_clear_error(result, 2, "touching")
    assert not (tmp_path / "p").exists()
