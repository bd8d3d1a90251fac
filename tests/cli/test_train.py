"""`medseg train`: from a manifest to a bundle that segments."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import assert_one_clear_error, files_below, run, run_well
from tests.cli.conftest import hot_spots
from tests.io.nifti_files import save
from tests.plans import tiny_plan


def _entry(path: Path, root: Path) -> dict[str, str]:
    return {"path": path.relative_to(root).as_posix(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two cases in two folds."""
    cases = []
    for fold, name in enumerate(("p1", "p2")):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        image = save(hot_spots().astype(np.float32) + fold, folder / "pet.nii.gz")
        label = save((hot_spots() > 2).astype(np.uint8), folder / "map.nii.gz")
        root = tmp_path / "data"
        cases.append({"case_id": name, "images": [_entry(image, root)], "label": _entry(label, root), "fold": fold})
    path = tmp_path / "manifest.json"
    path.write_text(
        json.dumps(
            {
                "schema_version": 1,
                "name": "two",
                "description": "Two cases.",
                "source": "made here",
                "licence": "CC0",
                "licence_url": "https://creativecommons.org/publicdomain/zero/1.0/",
                "attribution": "nobody",
                "root": "data",
                "channels": [{"name": "PET", "modality": "PT", "units": "suv"}],
                "labels": {"1": "tumor"},
                "cases": cases,
            }
        )
    )
    return path


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(tiny_plan().to_json())
    return path


@pytest.mark.slow
def test_a_trained_bundle_segments(tmp_path: Path, manifest: Path, plan_file: Path) -> None:
    bundle = tmp_path / "bundle"
    arguments = ["train", manifest, "-o", bundle, "--plan", plan_file, "--steps", "2", "--device", "cpu"]
    shown = json.loads(run_well(*arguments, "--json", "-q").stdout)
    assert shown["output"] == str(bundle)
    assert json.loads((bundle / "configs" / "plan.json").read_text())["training"]["steps"] == 2
    scan = tmp_path / "data" / "p1" / "pet.nii.gz"
    run_well("segment", scan, "--model", bundle, "-o", tmp_path / "out", "-q")
    assert_one_clear_error(run(*arguments), 2, "--overwrite")


@pytest.mark.slow
def test_one_fold_writes_no_bundle(tmp_path: Path, manifest: Path, plan_file: Path) -> None:
    arguments = ["train", manifest, "-o", tmp_path / "bundle", "--plan", plan_file, "--work-dir", tmp_path / "work"]
    result = run_well(*arguments, "--fold", "1", "--steps", "2", "--seed", "3")
    assert f"Folds written to {tmp_path / 'work'}" in result.stdout
    assert "fold 1" in result.stderr
    assert not (tmp_path / "bundle").exists()


def test_a_changed_file_is_refused(tmp_path: Path, manifest: Path, plan_file: Path) -> None:
    changed = tmp_path / "data" / "p2" / "pet.nii.gz"
    changed.write_bytes(changed.read_bytes() + b"\0")
    result = run("train", manifest, "-o", tmp_path / "bundle", "--plan", plan_file, "-q")
    assert_one_clear_error(result, 1, "pet.nii.gz")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("text", ['{"nam": 1}', "no json", None])
def test_a_bad_plan_is_wrong_usage_and_leaves_nothing(tmp_path: Path, manifest: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "bad.json").write_text(text)
    before = files_below(tmp_path)
    result = run("train", manifest, "-o", tmp_path / "bundle", "--plan", tmp_path / "bad.json", "-q")
    assert_one_clear_error(result, 2, "bad.json")
    assert files_below(tmp_path) == before


def test_a_missing_manifest_is_wrong_usage(tmp_path: Path) -> None:
    result = run("train", tmp_path / "none.json", "-o", tmp_path / "bundle", "-q")
    assert_one_clear_error(result, 2, "none.json")
    assert files_below(tmp_path) == {}


def test_a_dry_run_prints_the_plan_with_reasons_and_writes_nothing(tmp_path: Path, manifest: Path) -> None:
    before = files_below(tmp_path)
    result = run_well("train", manifest, "-o", tmp_path / "bundle", "--dry-run", "--device", "cpu")
    assert "spacing_mm = " in result.stdout
    assert "median voxel spacing" in result.stdout
    assert "nothing was trained" in result.stdout
    shown = json.loads(run_well("train", manifest, "-o", tmp_path / "bundle", "--dry-run", "--json").stdout)
    assert {reason["field"] for reason in shown["reasons"]} > {"spacing_mm", "network", "inference.patch_size"}
    assert shown["plan"]["name"] == "two"
    assert files_below(tmp_path) == before
    assert_one_clear_error(
        run("train", manifest, "-o", tmp_path / "b", "--dry-run", "--max-memory", "1MiB"), 1, "1 MiB are allowed"
    )
    assert_one_clear_error(
        run("train", manifest, "-o", tmp_path / "b", "--dry-run", "--patience", "3"), 2, "--validate-every"
    )


def test_an_aim_is_met_while_training_and_again_by_tune(tmp_path: Path, manifest: Path, plan_file: Path) -> None:
    bundle = tmp_path / "bundle"
    arguments = ["train", manifest, "-o", bundle, "--plan", plan_file, "--device", "cpu", "-q"]
    assert_one_clear_error(run(*arguments, "--aim", "dice"), 2, "--cross-validate")
    assert_one_clear_error(run(*arguments, "--cross-validate", "--aim", "best"), 2, "false positives <= N")
    assert not bundle.exists()
    run_well(*arguments, "--cross-validate", "--aim", "lesion f1", "--steps", "2")
    assert "## Operating point" in (bundle / "docs" / "README.md").read_text()
    before = files_below(tmp_path)
    shown = run_well("tune", bundle, "--aim", "false positives <= 0.5", "--dry-run", "-q")
    assert "Aim: false positives <= 0.5. Chosen among" in shown.stdout
    assert "2 held-out cases" in shown.stdout
    assert shown.stdout.endswith("Nothing was written\n")
    assert_one_clear_error(run("tune", bundle, "--aim", "dice", "-q"), 2, "--overwrite")
    assert files_below(tmp_path) == before
    written = json.loads(run_well("tune", bundle, "--aim", "count error", "--overwrite", "--json", "-q").stdout)
    assert written["aim"] == {"goal": "count error", "limit": None}
    assert json.loads((bundle / "docs" / "operating_point.json").read_text()) == written


def test_finetune_starts_from_a_bundle(tmp_path: Path, manifest: Path, plan_file: Path) -> None:
    run_well("train", manifest, "-o", tmp_path / "given", "--plan", plan_file, "--steps", "1", "-q")
    shown = run_well("finetune", tmp_path / "given", manifest, "-o", tmp_path / "out", "--steps", "1", "--json", "-q")
    assert json.loads(shown.stdout)["output"] == str(tmp_path / "out")
    start = ["finetune", tmp_path / "given", manifest, "-o", tmp_path / "folds", "--steps", "1", "-q"]
    assert run_well(*start, "--fold", "1").stdout == f"Folds written to {tmp_path / 'folds.training'}\n"
    assert not (tmp_path / "folds").exists()
    content = json.loads(manifest.read_text()) | {"labels": {"1": "node"}}
    manifest.write_text(json.dumps(content))
    result = run("finetune", tmp_path / "given", manifest, "-o", tmp_path / "other", "--steps", "1", "-q")
    assert_one_clear_error(result, 1, "--new-output", "1 = node")


def test_finetune_refuses_too_little_time_and_a_bundle_that_is_none(
    tmp_path: Path, manifest: Path, tiny_bundle: Path
) -> None:
    options = ["-o", tmp_path / "short", "--new-output", "--budget-minutes", "0.00001", "--device", "cpu", "-q"]
    assert_one_clear_error(run("finetune", tiny_bundle, manifest, *options), 1, "too few to train in")
    assert_one_clear_error(run("finetune", "none", manifest, "-o", tmp_path / "other", "-q"), 2, "none")
    assert not (tmp_path / "short").exists()
    assert not (tmp_path / "other").exists()
