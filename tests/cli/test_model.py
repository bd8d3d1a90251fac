"""`medseg model`: what it shows, checks, trusts and exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg.models.trust import trust_file
from tests.cli.commands import assert_one_clear_error, run, run_well
from tests.models.bundles import write_bundle
from tests.models.test_monai_bundle import own_bundle
from tests.nnunet_folders import dataset, model_folder
from tests.training.cases import write_data_set


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_commands_show_check_trust_and_export(tmp_path: Path) -> None:
    folder = own_bundle(tmp_path / "own")
    plain = write_bundle(tmp_path / "plain")
    assert "UNet, 0.00 million parameters" in run_well("model", "info", plain).stdout
    assert json.loads(run_well("model", "info", plain, "--json").stdout)["classes"] == {"1": "Spleen"}
    assert "(16, 16, 16) give (2, 16, 16, 16)" in run_well("model", "check", plain).stdout
    refused = run("model", "check", folder)
    assert refused.exit_code == 1
    assert "scripts/net.py would be executed" in refused.stderr
    assert str(trust_file()) in run_well("model", "trust", folder).stdout
    assert "as pinned" in run_well("model", "check", folder).stdout
    assert "trusted no longer" in run_well("model", "trust", folder, "--remove").stdout
    assert run("model", "check", folder).exit_code == 1
    run_well("model", "export", plain, "-o", tmp_path / "e")
    assert run("model", "export", plain, "-o", tmp_path / "e").exit_code == 2
    run_well("model", "export", plain, "-o", tmp_path / "e", "--overwrite")
    assert "(monai)" in run_well("model", "info", tmp_path / "e").stdout


def test_an_nnunet_model_is_trained_on_from_and_exported_again(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data")
    content = json.loads(manifest.read_text()) | {"channels": [{"name": "CT", "modality": "CT", "units": "stored"}]}
    manifest.write_text(json.dumps(content))
    described = dataset(labels={"background": 0, "tumor": 1})
    given = model_folder(tmp_path / "given", folds=(0, 2), dataset_json=described)
    bundle, folder = tmp_path / "bundle", tmp_path / "folder"
    done = run_well("finetune", given, manifest, "-o", bundle, "--from-fold", "2", "--steps", "1")
    assert "start = Dataset999_Test 3d_fullres fold 2: plain_conv_unet of 3 levels, grid SAR" in done.stderr
    assert "(medseg)" in run_well("model", "info", bundle).stdout
    done = run_well("model", "export", bundle, "--format", "nnunet", "-o", folder)
    assert "nnU-Net marks classes" in done.stderr
    assert "(nnunet)" in run_well("model", "info", folder).stdout
    run_well("segment", tmp_path / "data" / "case_0" / "image.nii.gz", "--model", folder, "-o", tmp_path / "out", "-q")
    assert run("model", "export", bundle, "--format", "nnunet", "-o", folder).exit_code == 2
    refused = run("model", "export", "sarcoma_pet", "--format", "nnunet", "-o", tmp_path / "other")
    assert_one_clear_error(refused, 1, "MONAI's (segresnet)", "goes through a sqrt")


def test_segment_takes_a_bundle_and_trusts_it_only_when_told(tmp_path: Path, scan_file: Path) -> None:
    folder = own_bundle(tmp_path / "own")
    refused = run("segment", scan_file, "--model", folder, "-o", tmp_path / "out")
    assert_one_clear_error(refused, 1, "scripts.net.Own", "--trust")
    run_well("segment", scan_file, "--model", folder, "-o", tmp_path / "out", "--trust")
    summary = json.loads((tmp_path / "out" / "result.json").read_text())
    assert "run with trust" in " ".join(summary["provenance"]["notes"])
    assert len(summary["provenance"]["weights_sha256"]) == 64
