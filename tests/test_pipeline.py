"""One scan from disk to its files."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import medseg
from medseg.core.plan import SeparationPlan
from medseg.errors import ChannelMismatch, NonFiniteVoxels, OutputExists, ScanError, ScanNotFound
from medseg.pipeline import RESULT_FILES, segment_folder

HOT = 12.0


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> object:
    return medseg.load_segmenter(tiny_bundle, device="cpu")


def write_scan(path: Path, *, nan: bool = False) -> Path:
    """Two hot blocks, one of them at the border, on an oblique grid stored with a quaternion only."""
    array = np.full((40, 36, 30), 0.5, dtype=np.float32)
    array[6:16, 8:20, 10:18] = HOT
    array[30:40, 20:28, 4:10] = HOT
    if nan:
        array[0, 0, 0] = np.nan
    turn = np.deg2rad(10.0)
    affine = np.eye(4)
    affine[:3, :3] = [[-np.cos(turn), -np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    affine[:3, :3] *= (4.07, 4.07, 3.27)
    affine[:3, 3] = (40.3, -30.1, 11.7)
    image = nib.Nifti1Image(array, None)
    image.set_qform(affine, code=1)
    image.set_sform(None, code=0)
    nib.save(image, path)
    return path


def test_what_an_archive_lacked_stands_in_the_result(segmenter: object, tmp_path: Path) -> None:
    path = tmp_path / "CANARY.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(write_scan(tmp_path / "scan.nii.gz"), "scan.nii.gz")
        link = tarfile.TarInfo("CANARY")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    folder = medseg.write_case(medseg.segment_case(medseg.read_scan(path), segmenter), tmp_path / "out")
    told = (folder / "result.json").read_text()
    assert "archive: passed over 1 links" in json.loads(told)["provenance"]["notes"]
    assert "CANARY" not in told


def test_files_agree_with_each_other_and_lie_on_the_scans_grid(segmenter: object, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    folder = medseg.write_case(medseg.segment_case(medseg.read_scan(scan), segmenter), tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == sorted(RESULT_FILES)
    source = nib.load(scan)
    maps = {name: nib.load(folder / f"{name}.nii.gz") for name in ("semantic", "lesions")}
    for image in maps.values():
        assert image.shape == source.shape
        np.testing.assert_array_equal(image.affine, source.affine)
        assert np.issubdtype(image.get_data_dtype(), np.unsignedinteger)
    numbers = np.unique(np.asarray(maps["lesions"].dataobj))
    rows = list(csv.DictReader((folder / "lesions.csv").read_text().splitlines()))
    result = json.loads((folder / "result.json").read_text())
    assert numbers.tolist() == list(range(len(rows) + 1))
    assert result["n_lesions"] == len(rows) == 2
    assert [row["touches_border"] for row in rows] == ["false", "true"]
    volume = sum(float(row["volume_ml"]) for row in rows)
    assert volume == pytest.approx(result["semantic_volume_ml"], rel=1e-12)
    voxels = np.count_nonzero(np.asarray(maps["semantic"].dataobj))
    assert volume == pytest.approx(voxels * abs(np.linalg.det(source.affine[:3, :3])) / 1000, rel=1e-6)


def test_separation_that_was_used_is_what_the_result_tells(segmenter: object, tmp_path: Path) -> None:
    scan = medseg.read_scan(write_scan(tmp_path / "scan.nii.gz"))
    planned = medseg.segment_case(scan, segmenter)
    smallest = planned.table.rows[1]["volume_ml"]
    asked = SeparationPlan(method="components", connectivity=6, minimum_volume_ml=smallest * 1.01)
    result = medseg.segment_case(scan, segmenter, separation=asked)
    assert result.lesions.n_lesions == 1
    folder = medseg.write_case(result, tmp_path / "out")
    told = json.loads((folder / "result.json").read_text())
    assert told["plan"]["separation"] == asked.model_dump(mode="json")
    assert told["separation"]["method"] == "components"
    assert told["separation"]["n_removed"] == 1
    assert told["separation"]["removed_volume_ml"] == pytest.approx(smallest)
    assert told["provenance"]["plan_sha256"] == result.recipe.sha256 != planned.recipe.sha256


def test_replaced_result_leaves_no_stale_file_and_other_files_alone(segmenter: object, tmp_path: Path) -> None:
    result = medseg.segment_case(medseg.read_scan(write_scan(tmp_path / "scan.nii.gz")), segmenter)
    folder = medseg.write_case(result, tmp_path / "out", save_probability=True)
    probability = nib.load(folder / "probability.nii.gz").get_fdata()
    assert probability.min() >= 0
    assert probability.max() <= 1
    assert probability[10, 14, 14] > 0.5 > probability[20, 5, 25]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputExists, match="overwrite"):
        medseg.write_case(result, folder)
    medseg.write_case(result, folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*RESULT_FILES, "notes.txt"])


def test_not_a_number_is_refused_or_filled_and_recorded(segmenter: object, tmp_path: Path) -> None:
    scan = medseg.read_scan(write_scan(tmp_path / "scan.nii.gz", nan=True))
    with pytest.raises(NonFiniteVoxels, match=r"scan\.nii\.gz"):
        medseg.segment_case(scan, segmenter)
    result = medseg.segment_case(scan, segmenter, nan_as=0.0)
    assert any("1 " in note and "0" in note for note in result.provenance.notes)


def test_wrong_number_of_channels_is_said_before_anything_is_read(segmenter: object, tmp_path: Path) -> None:
    path = write_scan(tmp_path / "scan.nii.gz", nan=True)
    with pytest.raises(ChannelMismatch, match="wants 1 channel"):
        medseg.segment_case(medseg.read_scan([path, path]), segmenter)


def test_provenance_names_weights_plan_input_and_versions(segmenter: object, tmp_path: Path) -> None:
    provenance = medseg.segment_case(medseg.read_scan(write_scan(tmp_path / "scan.nii.gz")), segmenter).provenance
    assert len(provenance.weights_sha256) == len(provenance.plan_sha256) == len(provenance.inputs_sha256[0]) == 64
    assert {"python", "torch", "monai", "numpy"} <= set(provenance.versions)
    assert provenance.device == "cpu"


def test_cases_of_a_folder_are_named_by_their_file_or_folder_and_none_replaces_another(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    for name in ("a", "b"):
        (scans / name).mkdir(parents=True)
        write_scan(scans / name / "scan.nii.gz")
    (scans / "notes.txt").write_text("")
    assert segment_folder(tiny_bundle, scans, out) == [out / "a", out / "b"]
    assert "1 other file(s) passed over" in caplog.text
    assert json.loads((out / "a" / "result.json").read_text())["case_id"] == "a"
    before = (out / "a" / "result.json").stat().st_mtime_ns
    write_scan(scans / "B.nii.gz")
    with pytest.raises(ScanError, match=r"1 of 3 case\(s\) failed: b: its case is b, as that of B\.nii\.gz; rename it"):
        segment_folder(tiny_bundle, scans, out)
    assert (out / "a" / "result.json").stat().st_mtime_ns > before
    with pytest.raises(ScanNotFound, match="nothing to segment"):
        segment_folder(tiny_bundle, scans / "notes.txt", out)
