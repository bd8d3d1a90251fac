"""`medseg segment`: what it writes and prints."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset

from medseg.core.table import COLUMNS
from medseg.io.case_ids import SALT_FILE
from medseg.pipeline import RESULT_FILES
from tests.cli.commands import assert_one_clear_error, files_below, run, run_well
from tests.cli.conftest import hot_spots
from tests.io.dicom_files import add_pet_tags, write_series
from tests.io.nifti_files import save

HEADER = ",".join(column.name for column in COLUMNS)


def _without_seconds(folder: Path) -> dict[str, object]:
    files: dict[str, object] = dict(files_below(folder))
    summary = json.loads((folder / "result.json").read_text())
    assert summary.pop("seconds")
    return {**files, "result.json": summary}


def test_all_files_are_written_and_the_table_is_printed(tmp_path: Path, scan_file: Path, tiny_bundle: Path) -> None:
    result = run_well("segment", scan_file, "--model", tiny_bundle, "-o", tmp_path / "out")
    assert sorted(files_below(tmp_path / "out")) == sorted(RESULT_FILES)
    assert "volume ml" in result.stdout
    assert "report.html" in result.stdout
    assert result.stderr.splitlines()[0] == "read"
    assert "Note: pet.nii.gz: taken as SUV on trust" in result.stderr


def test_the_lesions_lie_on_the_grid_of_the_scan(segmented: Path, scan_file: Path) -> None:
    scan, lesions = nib.load(scan_file), nib.load(segmented / "lesions.nii.gz")
    numbers = np.asarray(lesions.dataobj)
    assert lesions.shape == scan.shape
    assert lesions.affine.tobytes() == scan.affine.tobytes()
    assert numbers.dtype.kind == "u"
    assert np.unique(numbers).tolist() == [0, 1, 2]
    assert numbers[7, 7, 7] == 1
    assert numbers[16, 16, 12] == 2
    assert len((segmented / "lesions.csv").read_text().splitlines()) == 1 + 2


def test_json_is_all_of_stdout_and_quiet_leaves_stderr_empty(
    tmp_path: Path, scan_file: Path, tiny_bundle: Path
) -> None:
    out = tmp_path / "out"
    result = run_well("segment", scan_file, "--model", tiny_bundle, "-o", out, "--json", "--quiet")
    shown = json.loads(result.stdout)
    assert (shown["case_id"], shown["n_lesions"], shown["output"]) == ("pet", 2, str(out))
    assert shown["files"] == [str(out / name) for name in RESULT_FILES]
    assert [row["lesion_id"] for row in shown["lesions"]] == [1, 2]
    assert set(shown["seconds"]) >= {"read", "network", "separate", "measure"}
    assert result.stderr == ""


def test_two_runs_write_the_same_bytes_apart_from_the_seconds(
    tmp_path: Path, segmented: Path, scan_file: Path, tiny_bundle: Path
) -> None:
    run_well("segment", scan_file, "--model", tiny_bundle, "-o", tmp_path / "again")
    assert _without_seconds(tmp_path / "again") == _without_seconds(segmented)


def test_a_scan_without_lesions_gives_an_empty_table_with_its_header(tmp_path: Path, tiny_bundle: Path) -> None:
    empty = save(np.zeros((20, 20, 20), dtype=np.float32), tmp_path / "empty.nii.gz")
    result = run_well("segment", empty, "--model", tiny_bundle, "-o", tmp_path / "out")
    assert (tmp_path / "out" / "lesions.csv").read_text() == f"{HEADER}\n"
    assert "No lesion found." in result.stdout
    assert "No lesion found." in (tmp_path / "out" / "report.html").read_text()
    assert not np.asarray(nib.load(tmp_path / "out" / "lesions.nii.gz").dataobj).any()


def test_separation_options_override_the_plan_only_where_given(
    tmp_path: Path, scan_file: Path, tiny_bundle: Path
) -> None:
    arguments = ["segment", scan_file, "--model", tiny_bundle, "-o", tmp_path / "out", "--json"]
    shown = json.loads(run_well(*arguments, "--method", "components", "--minimum-volume-ml", "1.5").stdout)
    summary = json.loads((tmp_path / "out" / "result.json").read_text())
    assert shown["n_lesions"] == 1
    assert summary["separation"]["method"] == "components"
    assert summary["separation"]["n_removed"] == 1


def test_case_id_is_what_was_asked_for(tmp_path: Path, scan_file: Path, tiny_bundle: Path) -> None:
    run_well("segment", scan_file, "--model", tiny_bundle, "-o", tmp_path / "out", "--case-id", "case 7")
    assert (tmp_path / "out" / "lesions.csv").read_text().splitlines()[1].startswith("case 7,1,")


def test_evidence_is_saved_on_request(tmp_path: Path, scan_file: Path, tiny_bundle: Path) -> None:
    result = run_well("segment", scan_file, "--model", tiny_bundle, "-o", tmp_path / "out", "--save-evidence")
    probability = np.asarray(nib.load(tmp_path / "out" / "probability.nii.gz").dataobj)
    assert probability.shape == (24, 24, 20)
    assert 0.0 <= probability.min() < 0.5 < probability.max() <= 1.0
    assert "probability.nii.gz" in result.stdout


def test_a_result_is_replaced_only_with_overwrite(
    tmp_path: Path, segmented: Path, scan_file: Path, tiny_bundle: Path
) -> None:
    (segmented / "mine.txt").write_text("kept")
    before = files_below(segmented)
    arguments = ["segment", scan_file, "--model", tiny_bundle, "-o", segmented]
    assert_one_clear_error(run(*arguments), 2, "--overwrite")
    assert files_below(segmented) == before
    run_well(*arguments, "--overwrite")
    assert (segmented / "mine.txt").read_text() == "kept"


def test_a_dicom_case_keeps_its_name_and_no_identity(tmp_path: Path, tiny_bundle: Path) -> None:
    def edit(dataset: Dataset, _: int) -> None:
        add_pet_tags(dataset)
        dataset.RescaleSlope, dataset.RescaleIntercept = 200.0, 0.0

    write_series(tmp_path / "dicom", n_slices=6, modality="PT", edit=edit)
    arguments = ["segment", tmp_path / "dicom", "--model", tiny_bundle, "-o", tmp_path / "out", "--json"]
    first = json.loads(run_well(*arguments).stdout)
    again = json.loads(run_well(*arguments, "--overwrite").stdout)
    assert first["case_id"] == again["case_id"]
    assert len(first["case_id"]) == 16
    assert SALT_FILE in files_below(tmp_path / "out")
    assert not any(b"CANARY" in content for content in files_below(tmp_path / "out").values())
    elsewhere = ["segment", tmp_path / "dicom", "--model", tiny_bundle, "-o", tmp_path / "other", "--json"]
    assert json.loads(run_well(*elsewhere).stdout)["case_id"] != first["case_id"]


def test_nan_is_filled_and_told_only_on_request(tmp_path: Path, tiny_bundle: Path) -> None:
    array = hot_spots().astype(np.float32)
    array[0, 0, 0] = np.nan
    scan = save(array, tmp_path / "nan.nii.gz")
    result = run_well("segment", scan, "--model", tiny_bundle, "-o", tmp_path / "out", "--nan-as", "0")
    assert "Note: filled 1 NaN" in result.stderr
    assert "filled 1 NaN" in (tmp_path / "out" / "result.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_that_is_stopped_leaves_nothing_behind(
    tmp_path: Path, tiny_bundle: Path, number: int, exit_code: int
) -> None:
    scan = save(np.ones((160, 160, 160), dtype=np.float32), tmp_path / "large.nii")
    arguments = ["-m", "medseg", "segment", str(scan), "--model", str(tiny_bundle), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    assert process.stderr is not None
    assert any(line.startswith("network") for line in process.stderr)  # reads up to there
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert "Traceback" not in stderr
    assert stdout == ""
    assert sorted(files_below(tmp_path)) == ["large.nii"]
