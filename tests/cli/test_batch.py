"""`medseg batch` and `medseg status`: what they print, write and return."""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from pathlib import Path

from pydicom import Dataset, dcmread

from tests.batch.archives import make_archive
from tests.canary import CANARY, NAMING, told_of
from tests.cli.commands import assert_one_clear_error, files_below, run, run_well
from tests.io.dicom_files import add_pet_tags, set_tag, write_series


def test_a_zip_is_done_and_its_bad_scan_is_exit_code_1(tmp_path: Path, tiny_bundle: Path) -> None:
    folder = make_archive(tmp_path / "in", 2, 1)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in folder.rglob("*.nii"):
            archive.write(path, path.relative_to(folder))
    out = tmp_path / "out"
    result = run("batch", tmp_path / "in.zip", "-m", tiny_bundle, "-o", out, "--json", "--engine", "torch")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    assert (shown["n_cases"], shown["n_done"], shown["n_failed"]) == (3, 2, 1)
    events = [json.loads(line) for line in result.stderr.splitlines()]
    told = [event["event"] for event in events]
    assert (told[:2], told[-1]) == (["found", "failed"], "end")
    assert sorted(told[2:-1]) == ["done", "done", "start", "start"]  # both are in work at a time
    (out / "cases.parquet").unlink()
    told = run_well("status", out, "--tables").stdout
    assert "3 case(s): 2 done, 1 failed, 0 to do" in told
    assert (out / "cases.parquet").is_file()


def test_dry_run_prints_the_cases_and_writes_nothing(tmp_path: Path, tiny_bundle: Path) -> None:
    archive = make_archive(tmp_path / "in", 2, 1)
    before = files_below(tmp_path)
    rule = "slices == 12 and not case_id in ('p1/scan_001', 'x')"
    result = run_well("batch", archive, "-m", tiny_bundle, "-o", tmp_path / "out", "--select", rule, "--dry-run")
    *lines, estimate = result.stdout.splitlines()
    assert lines == ["to do        p0/scan_000", "1 of 1 case(s) to do"]
    assert re.fullmatch(r"about \d+ s and \d\.\d MiB of results \(from a trial of p0/scan_000\)", estimate)
    assert files_below(tmp_path) == before


def test_wrong_use_is_one_clear_error(tmp_path: Path, tiny_bundle: Path) -> None:
    archive = make_archive(tmp_path / "in", 1)
    asked = ("batch", archive, "-m", tiny_bundle, "-o", tmp_path / "out")
    assert_one_clear_error(run(*asked, "--select", "slices.real > 1"), 2, "slices.real")
    assert_one_clear_error(run(*asked, "--time-limit-s", -1), 2, "time limit")
    assert_one_clear_error(run("batch", tmp_path / "none", "-m", tiny_bundle, "-o", tmp_path / "out"), 2, "none")
    assert_one_clear_error(run("status", tmp_path), 2, "no batch")
    pacs = ("batch", "--from", "dimse:A@127.0.0.1:9", "--modality", "PT", "-m", tiny_bundle, "-o", tmp_path / "out")
    assert_one_clear_error(run(*pacs, "--own-title", "LONGER THAN A TITLE"), 2, "1 to 16")
    assert_one_clear_error(run(*asked, "--copy-to", "ftp://me:xyz@127.0.0.1:9/run"), 2, "user or password")
    assert not (tmp_path / "out").exists()


def test_a_canary_name_is_in_no_file_table_page_or_log_of_a_batch(tmp_path: Path, tiny_bundle: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        add_pet_tags(dataset)
        dataset.RescaleSlope, dataset.RescaleIntercept = 200.0, 0.0
        for pair in NAMING.items():
            set_tag(*pair)(dataset, k)

    def broken(dataset: Dataset, k: int) -> None:
        edit(dataset, k)
        dataset.SeriesInstanceUID, dataset.PixelSpacing = "1.2.3.4", None

    write_series(tmp_path / "in" / "good", n_slices=6, modality="PT", edit=edit)
    write_series(tmp_path / "in" / "bad", n_slices=6, modality="PT", edit=broken)
    told = run("batch", tmp_path / "in", "-m", tiny_bundle, "-o", tmp_path / "out", "--engine", "torch")
    assert told.exit_code == 1  # one case failed, so that its reason is looked through too
    assert (tmp_path / "out" / "index.html").is_file()
    assert list((tmp_path / "out").rglob("lesions.csv"))
    assert told_of(tmp_path / "out") == []
    assert CANARY not in told.stdout + told.stderr


def test_outputs_are_chosen_as_for_one_scan_and_another_choice_is_done_again(tmp_path: Path, tiny_bundle: Path) -> None:
    def edit(dataset: Dataset, k: int) -> None:
        add_pet_tags(dataset)
        dataset.RescaleSlope, dataset.RescaleIntercept = 200.0, 0.0

    make_archive(tmp_path / "in" / "nifti", 2)
    write_series(tmp_path / "in" / "dicom", n_slices=6, modality="PT", edit=edit)
    asked = ("batch", tmp_path / "in", "-m", tiny_bundle, "-o", tmp_path / "out", "--engine", "torch")
    chosen = ("--viewer", "niivue", "--rtstruct", "--seg-kind", "labelmap", "--resume", "--json")
    assert told_counts(run_well(*asked, *chosen).stderr) == {"start": 3, "done": 3}
    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("*/report.html")]
    assert ["niivue-script" in page for page in pages] == [True] * 3
    (structures,) = (tmp_path / "out").glob("*/lesions.rtstruct.dcm")
    assert dcmread(structures.with_name("lesions.seg.dcm")).SegmentationType == "LABELMAP"
    assert told_counts(run_well(*asked, *chosen).stderr) == {"skipped": 3}
    assert told_counts(run_well(*asked, "--resume", "--json").stderr) == {"start": 3, "done": 3}
    assert not structures.exists()
    assert dcmread(structures.with_name("lesions.seg.dcm")).SegmentationType == "BINARY"


def test_meshes_are_files_of_a_case_as_others_are(tmp_path: Path, tiny_bundle: Path) -> None:
    make_archive(tmp_path / "in", 3)  # with none, one and two lesions
    asked = ("batch", tmp_path / "in", "-m", tiny_bundle, "-o", tmp_path / "out", "--engine", "torch", "--json")
    run_well(*asked, "--mesh", "stl", "--copy-to", (tmp_path / "copy").as_uri())
    meshes = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").glob("*/meshes/*"))
    for case in (tmp_path / "out").glob("*/lesions.csv"):
        rows = case.read_text(encoding="utf-8").splitlines()[1:]
        names = [f"lesion_{number:03d}.stl" for number in range(1, len(rows) + 1)]
        assert [path.name for path in meshes if path.parts[0] == case.parent.name] == names
    assert meshes == sorted(path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").glob("*/meshes/*"))
    assert told_counts(run_well(*asked, "--mesh", "stl", "--resume").stderr) == {"skipped": 3}
    (tmp_path / "out" / meshes[0]).unlink()
    assert told_counts(run_well(*asked, "--mesh", "stl", "--resume").stderr) == {"start": 1, "done": 1, "skipped": 2}
    assert (tmp_path / "out" / meshes[0]).is_file()
    assert told_counts(run_well(*asked, "--resume").stderr) == {"start": 3, "done": 3}
    assert not list((tmp_path / "out").glob("*/meshes"))


def told_counts(events: str) -> dict[str, int]:
    """How often each thing was told of a case."""
    told = Counter(json.loads(line)["event"] for line in events.splitlines())
    return {event: n for event, n in told.items() if event not in ("found", "end")}
