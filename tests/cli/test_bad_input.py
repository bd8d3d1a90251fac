"""Bad input: one clear message, exit code 1 or 2, no traceback, no file left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import assert_one_clear_error, files_below, run
from tests.cli.conftest import hot_spots
from tests.io.nifti_files import patch, save
from tests.io.text_headers import write_meta, write_nrrd


def _missing(folder: Path) -> Path:
    return folder / "missing.nii.gz"


def _two_dimensional(folder: Path) -> Path:
    return save(np.ones((16, 16), dtype=np.float32), folder / "flat.nii.gz")


def _four_dimensional(folder: Path) -> Path:
    return save(np.ones((8, 8, 8, 3), dtype=np.float32), folder / "dynamic.nii.gz")


def _with_nan(folder: Path) -> Path:
    array = hot_spots().astype(np.float32)
    array[2, 3, 4] = np.nan
    return save(array, folder / "nan.nii.gz")


def _with_infinity(folder: Path) -> Path:
    array = hot_spots().astype(np.float32)
    array[2, 3, 4] = np.inf
    return save(array, folder / "inf.nii.gz")


def _zero_spacing(folder: Path) -> Path:
    return save(hot_spots(), folder / "zero.nii", srow_x=[0, 0, 0, 1], srow_y=[0, 2, 0, 1], srow_z=[0, 0, 2, 1])


def _singular(folder: Path) -> Path:
    return save(hot_spots(), folder / "singular.nii", srow_x=[1, 2, 0, 0], srow_y=[1, 2, 0, 0], srow_z=[0, 0, 1, 0])


def _no_spacing_at_all(folder: Path) -> Path:
    path = save(hot_spots(), folder / "pixdim.nii")
    patch(path, sform_code=0, qform_code=1, pixdim=[1, 0, 2, 2, 0, 0, 0, 0])
    return path


def _truncated(folder: Path) -> Path:
    noise = np.random.default_rng(0).random((24, 24, 24), dtype=np.float32)
    path = save(noise, folder / "cut.nii.gz")
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def _truncated_header(folder: Path) -> Path:
    path = save(hot_spots(), folder / "stub.nii.gz")
    path.write_bytes(path.read_bytes()[:40])
    return path


def _text(folder: Path) -> Path:
    path = folder / "text.nii.gz"
    path.write_text("This is not an image.")
    return path


def _nothing(folder: Path) -> Path:
    path = folder / "empty.nii.gz"
    path.write_bytes(b"")
    return path


def _other_suffix(folder: Path) -> Path:
    path = folder / "picture.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    return path


def _web_page(folder: Path) -> Path:
    path = folder / "page.nrrd"
    path.write_text("<!DOCTYPE html><title>404 Not Found</title>")
    return path


def _voxels_elsewhere(folder: Path) -> Path:
    return write_meta(folder / "outside.mhd", b"", ElementDataFile="/etc/passwd")


def _no_position(folder: Path) -> Path:
    return write_nrrd(folder / "nowhere.nrrd", space=None)


def _empty_folder(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


BAD_SCANS = [
    (_missing, 2, "missing.nii.gz"),
    (_two_dimensional, 1, "flat.nii.gz"),
    (_four_dimensional, 1, "dynamic.nii.gz"),
    (_with_nan, 1, "--nan-as"),
    (_with_infinity, 1, "--nan-as"),
    (_zero_spacing, 1, "zero.nii"),
    (_singular, 1, "singular"),
    (_no_spacing_at_all, 1, "pixdim.nii"),
    (_truncated, 1, "cut.nii.gz"),
    (_truncated_header, 1, "stub.nii.gz"),
    (_text, 1, "text.nii.gz"),
    (_nothing, 1, "empty.nii.gz"),
    (_other_suffix, 1, "picture.jpg"),
    (_web_page, 1, "page.nrrd"),
    (_voxels_elsewhere, 1, "outside.mhd"),
    (_no_position, 1, "nowhere.nrrd"),
    (_empty_folder, 2, "nothing"),
]


@pytest.mark.parametrize(("make", "exit_code", "word"), BAD_SCANS)
def test_segment_refuses_it(
    tmp_path: Path, tiny_bundle: Path, make: Callable[[Path], Path], exit_code: int, word: str
) -> None:
    scan = make(tmp_path)
    before = files_below(tmp_path)
    result = run("segment", scan, "--model", tiny_bundle, "-o", tmp_path / "out" / "case", "--quiet")
    assert_one_clear_error(result, exit_code, word)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(("make", "exit_code", "word"), [bad for bad in BAD_SCANS if bad[0] is not _empty_folder])
@pytest.mark.parametrize("command", ["separate", "measure"])
def test_separate_and_measure_refuse_it(
    tmp_path: Path, command: str, make: Callable[[Path], Path], exit_code: int, word: str
) -> None:
    path = make(tmp_path)
    before = files_below(tmp_path)
    output = tmp_path / "new" / ("lesions.nii.gz" if command == "separate" else "lesions.csv")
    result = run(command, path, "-o", output, "--quiet")
    assert_one_clear_error(result, exit_code, path.name)
    assert files_below(tmp_path) == before


def test_the_wrong_number_of_channels_names_those_wanted(tmp_path: Path, scan_file: Path, tiny_bundle: Path) -> None:
    result = run("segment", scan_file, scan_file, "--model", tiny_bundle, "-o", tmp_path / "out", "--quiet")
    assert_one_clear_error(result, 2, "1 channel(s) (pet)", "the scan has 2")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_below_a_file_is_refused(tmp_path: Path, scan_file: Path, tiny_bundle: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    before = files_below(tmp_path)
    for arguments in (
        ("segment", scan_file, "--model", tiny_bundle, "-o", tmp_path / "file" / "out"),
        ("segment", scan_file, "--model", tiny_bundle, "-o", tmp_path / "file"),
        ("separate", scan_file, "-o", tmp_path / "file" / "out.nii.gz"),
        ("measure", scan_file, "-o", tmp_path / "file" / "out.csv"),
        ("phantom", "-o", tmp_path / "file" / "out"),
        ("demo", "-o", tmp_path / "file" / "out", "--model", tiny_bundle),
    ):
        assert_one_clear_error(run(*arguments), 2, "file")
    assert files_below(tmp_path) == before


def test_an_unknown_model_names_the_shipped_ones(tmp_path: Path, scan_file: Path) -> None:
    result = run("segment", scan_file, "--model", "no_such_model", "-o", tmp_path / "out")
    assert_one_clear_error(result, 2, "no_such_model", "shipped are")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, scan_file: Path) -> None:
    assert_one_clear_error(run("segment", scan_file, "--model", tmp_path, "-o", tmp_path / "out"), 1, "plan.json")


def test_damaged_weights_are_refused(tmp_path: Path, scan_file: Path, tiny_bundle: Path) -> None:
    bundle = tmp_path / "bundle"
    for part in ("configs", "models"):
        (bundle / part).mkdir(parents=True)
    (bundle / "configs" / "plan.json").write_bytes((tiny_bundle / "configs" / "plan.json").read_bytes())
    (bundle / "models" / "model.pt").write_bytes((tiny_bundle / "models" / "model.pt").read_bytes()[:500])
    assert_one_clear_error(run("segment", scan_file, "--model", bundle, "-o", tmp_path / "out"), 1, "model.pt")


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:99"])
def test_a_device_that_is_not_there_is_wrong_usage(
    tmp_path: Path, scan_file: Path, tiny_bundle: Path, device: str
) -> None:
    result = run("segment", scan_file, "--model", tiny_bundle, "-o", tmp_path / "out", "--device", device)
    assert_one_clear_error(result, 2, device)


@pytest.mark.parametrize("volume", ["nan", "inf"])
def test_a_minimum_volume_must_be_finite(tmp_path: Path, scan_file: Path, volume: str) -> None:
    result = run("separate", scan_file, "-o", tmp_path / "out.nii.gz", "--minimum-volume-ml", volume)
    assert_one_clear_error(result, 2, "--minimum-volume-ml")


def test_a_real_process_says_it_the_same_way(tmp_path: Path, tiny_bundle: Path) -> None:
    arguments = ["segment", str(_truncated(tmp_path)), "--model", str(tiny_bundle), "-o", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "medseg", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("Error:") == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
