"""From a manifest to a bundle that finds what it was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import medseg
from medseg.core.plan import Plan, with_changes
from medseg.errors import HashMismatch, OutputExists, TrainingError, UsageError
from medseg.training.finetune import finetune
from medseg.training.scores import CrossValidation
from medseg.training.train import train
from tests.plans import tiny_plan
from tests.training.cases import listed, write_data_set


def quick_plan(steps: int = 3) -> Plan:
    return tiny_plan(steps=steps, patch_size=(16, 16, 16))


def test_trained_bundle_finds_the_blocks_of_a_case_it_has_not_seen(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data", n_cases=5)
    held_out = json.loads(manifest.read_text())
    held_out["cases"] = held_out["cases"][:4]
    manifest.write_text(json.dumps(held_out))
    bundle = train(manifest, tmp_path / "bundle", plan=quick_plan(150), device="cpu")
    segmenter = medseg.load_segmenter(bundle, device="cpu")
    scan = medseg.read_scan(tmp_path / "data" / "case_4" / "image.nii.gz")
    result = medseg.segment_case(scan, segmenter)
    reference = medseg.read_semantic(tmp_path / "data" / "case_4" / "label.nii.gz")
    overlap = np.count_nonzero(result.semantic.array & reference.array)
    dice = 2 * overlap / (result.semantic.n_foreground_voxels + reference.n_foreground_voxels)
    assert dice > 0.8


def test_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data")
    hashes = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        bundle = train(manifest, tmp_path / name, plan=quick_plan(), device="cpu", seed=seed)
        hashes[name] = medseg.load_segmenter(bundle, device="cpu").weights_sha256
    assert hashes["a"] == hashes["b"] != hashes["c"]


def test_cross_validation_scores_every_case_once_and_writes_the_card(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data")
    bundle = train(manifest, tmp_path / "bundle", plan=quick_plan(), device="cpu", cross_validate=True)
    saved = CrossValidation.model_validate_json((bundle / "docs" / "cross_validation.json").read_text())
    assert [case.case_id for case in saved.cases] == [f"case_{n}" for n in range(4)]
    assert [case.fold for case in saved.cases] == [0, 1, 0, 1]
    assert saved.n_folds == 2
    assert saved.dice.mean == pytest.approx(np.mean([case.dice for case in saved.cases]))
    card = (bundle / "docs" / "README.md").read_text()
    assert "| case_3 | 1 |" in card
    assert "research use only" in card
    assert "* Blocks are not tumors." in card


def test_folds_trained_side_by_side_are_gathered_without_training_again(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data")
    whole = train(manifest, tmp_path / "whole", plan=quick_plan(), device="cpu", cross_validate=True)
    for fold in (1, 0):
        assert train(manifest, tmp_path / "parts", plan=quick_plan(), device="cpu", folds=[fold]).name.endswith(
            ".training"
        )
    assert not (tmp_path / "parts").exists()
    log = tmp_path / "parts.training" / "fold_0" / "train.log"
    before = log.stat().st_mtime_ns
    parts = train(manifest, tmp_path / "parts", plan=quick_plan(), device="cpu", cross_validate=True, resume=True)
    assert log.stat().st_mtime_ns == before
    for name in ("docs/cross_validation.json", "docs/README.md", "configs/plan.json", "configs/metadata.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_changed_file_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data")
    with (tmp_path / "data" / "case_2" / "label.nii.gz").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(HashMismatch, match=r"case_2: .*label\.nii\.gz"):
        train(manifest, tmp_path / "bundle", plan=quick_plan(), device="cpu")
    assert not (tmp_path / "bundle").exists()


def test_bundle_that_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data")
    train(manifest, tmp_path / "bundle", plan=quick_plan(), device="cpu")
    with pytest.raises(OutputExists, match="--overwrite"):
        train(manifest, tmp_path / "bundle", plan=quick_plan(), device="cpu")
    train(manifest, tmp_path / "bundle", plan=quick_plan(), device="cpu", overwrite=True)


def test_checkpoint_of_another_plan_is_not_resumed(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data")
    train(manifest, tmp_path / "bundle", plan=quick_plan(2), device="cpu")
    with pytest.raises(TrainingError, match="another plan"):
        train(manifest, tmp_path / "bundle", plan=quick_plan(4), device="cpu", resume=True, overwrite=True)


def test_unknown_fold_and_missing_folds_are_said(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data")
    with pytest.raises(UsageError, match=r"no fold \[7\]; its folds are \[0, 1\]"):
        train(manifest, tmp_path / "bundle", plan=quick_plan(), device="cpu", folds=[7])
    content = json.loads(manifest.read_text())
    del content["cases"][1]["fold"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(TrainingError, match="case_1"):
        train(manifest, tmp_path / "bundle", plan=quick_plan(), device="cpu", cross_validate=True)


@pytest.mark.real_data
def test_shipped_plan_is_what_the_planner_makes_of_the_manifest(real_data: Path) -> None:
    """`medseg train data_manifests/sarcoma_pet.json` plans what was shipped."""
    from medseg.io.labelled_cases import read_cases
    from medseg.io.manifest import read_manifest
    from medseg.models.shipped import find_model
    from medseg.training.fingerprint import take_fingerprint
    from medseg.training.planner import plan_training

    path = Path(__file__).resolve().parents[2] / "data_manifests" / "sarcoma_pet.json"
    manifest, root = read_manifest(path, real_data / "volumes" / "sts")
    planned = plan_training(manifest, take_fingerprint(read_cases(manifest, root), manifest))
    shipped = Plan.from_json((find_model("sarcoma_pet") / "configs" / "plan.json").read_text())
    later = {  # chosen on held-out maps, and with the heads, which were given afterwards
        "inference": {"foreground_threshold": None},
        "network": {"instance_heads": False},
        "separation": {name: getattr(planned.separation, name) for name in ("peak_heat", "peak_prominence")},
    }
    assert planned == with_changes(shipped.model_copy(update={"heads_training": None}), later)


def test_a_fold_that_is_not_there_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data")
    for begin in (train, partial(finetune, "sarcoma_pet")):
        with pytest.raises(UsageError, match=r"the manifest has no fold \[9\]; its folds are \[0, 1"):
            begin(manifest, tmp_path / "bundle", folds=[9], device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def with_network(plan: Plan, **changes: object) -> Plan:
    return plan.model_copy(update={"network": plan.network.model_copy(update=changes)})


def known_instances(manifest: Path) -> Path:
    content = json.loads(manifest.read_text())
    for number, case in enumerate(content["cases"]):
        case["lesions"] = ("numbered", "one", "unknown")[number % 3]
    manifest.write_text(json.dumps(content))
    return manifest


@pytest.mark.parametrize("weights_dtype", ["float32", "float16"])
def test_heads_are_given_to_a_network_that_stays_as_it_is(tmp_path: Path, weights_dtype: str) -> None:
    manifest = known_instances(write_data_set(tmp_path / "data"))
    form = {"kind": "segresnet", "filters": (8, 16), "strides": (2,), "members": 2}
    plain = with_network(quick_plan(), **form, weights_dtype=weights_dtype)
    before = train(manifest, tmp_path / "before", plan=plain, device="cpu", cross_validate=True, aim="dice")
    after = train(manifest, tmp_path / "after", heads_for=before, steps=2, device="cpu")
    for name in ("models/model.pt", "docs/cross_validation.json", "docs/operating_point.json"):
        assert (after / name).read_bytes() == (before / name).read_bytes()
    for name in ("model.pt", "instance_heads.pt"):
        kept = torch.load(after / "models" / name, weights_only=True)
        assert {tensor.dtype for tensor in kept.values()} == {getattr(torch, weights_dtype)}
    card = (after / "docs" / "README.md").read_text()
    assert "cross-validation with the same training" in card
    assert "## Operating point" in card
    scan = medseg.read_scan(tmp_path / "data" / "case_1" / "image.nii.gz")
    volume = medseg.load_volume(scan, units="suv")
    maps = []
    for bundle in (before, after):
        segmenter = medseg.load_segmenter(bundle, device="cpu", precision="exact")  # one engine for both
        maps.append((segmenter.segment(volume)[0], segmenter.weights_sha256))
    assert np.array_equal(maps[0][0].array, maps[1][0].array)
    assert np.array_equal(maps[0][0].probability, maps[1][0].probability)
    assert maps[0][1] != maps[1][1]
    assert maps[0][0].evidence is None
    assert (maps[1][0].evidence is not None) == bool(maps[1][0].array.any())


def test_heads_that_share_the_last_features_cannot_be_trained_alone(tmp_path: Path) -> None:
    manifest = known_instances(write_data_set(tmp_path / "data"))
    before = train(manifest, tmp_path / "before", plan=quick_plan(), device="cpu")
    with pytest.raises(TrainingError, match="segresnet"):
        train(manifest, tmp_path / "after", heads_for=before, steps=2, device="cpu")
    with pytest.raises(UsageError, match="cross-validate"):
        train(manifest, tmp_path / "after", heads_for=before, cross_validate=True, device="cpu")


def test_a_network_with_shared_heads_is_trained_and_loaded(tmp_path: Path) -> None:
    manifest = known_instances(write_data_set(tmp_path / "data"))
    plan = with_network(quick_plan(), instance_heads=True)
    bundle = train(manifest, tmp_path / "bundle", plan=plan, device="cpu")
    assert not (bundle / "models" / "instance_heads.pt").exists()
    assert medseg.load_segmenter(bundle, device="cpu").recipe.output.has_instance_heads


@pytest.mark.parametrize("fault", ["no case to train on", "nothing marked"])
def test_nothing_to_train_on_is_said_before_training(tmp_path: Path, fault: str) -> None:
    import nibabel as nib

    manifest = write_data_set(tmp_path / "data", n_cases=2)
    content = json.loads(manifest.read_text())
    for case in content["cases"]:
        if fault == "no case to train on":
            del case["fold"]
            case["split"] = "test"
        else:
            path = tmp_path / "data" / case["label"]["path"]
            nib.save(nib.Nifti1Image(np.zeros((14, 15, 16), np.uint8), np.diag([4.0, 4.0, 4.0, 1.0])), path)
            case["label"] = listed(tmp_path / "data", case["label"]["path"])
    manifest.write_text(json.dumps(content))
    expected = "none of them in split train" if fault == "no case to train on" else "no lesion is marked"
    with pytest.raises(TrainingError, match=expected):
        train(manifest, tmp_path / "bundle", plan=quick_plan(), device="cpu")
    assert not (tmp_path / "bundle.training").exists()


def test_cases_of_other_splits_are_neither_trained_on_nor_counted(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data", n_cases=3)
    alone = train(manifest, tmp_path / "three", plan=quick_plan(), device="cpu")
    content = json.loads(manifest.read_text())
    content["cases"][2] |= {"split": "validation", "fold": None}
    manifest.write_text(json.dumps(content))
    bundle = train(manifest, tmp_path / "two", plan=quick_plan(), device="cpu")
    assert "\n2 cases. 1 more of the manifest, to validate or test on," in (bundle / "docs" / "README.md").read_text()
    assert "\n3 cases. Channels" in (alone / "docs" / "README.md").read_text()
    metadata = [json.loads((folder / "configs" / "metadata.json").read_text()) for folder in (alone, bundle)]
    assert [each["training_cases"] for each in metadata] == [3, 2]


def interrupted(folds_done: int) -> Callable[[str, int, int], None]:
    """Progress that ends a run in the training that follows so many folds."""

    def tell(stage: str, done: int, _total: int) -> None:
        if stage == f"fold {folds_done}" and done:
            raise KeyboardInterrupt

    return tell


def scored_at(bundle: Path) -> list[int]:
    """When each fold was scored, 0 for not yet."""
    files = [bundle.with_name(f"{bundle.name}.training") / f"fold_{fold}" / "scores.json" for fold in (0, 1)]
    return [path.stat().st_mtime_ns if path.exists() else 0 for path in files]


def test_a_run_that_starts_anew_leaves_nothing_to_take_for_its_own(tmp_path: Path) -> None:
    manifest, bundle = write_data_set(tmp_path / "data"), tmp_path / "bundle"
    train(manifest, bundle, plan=quick_plan(), device="cpu", cross_validate=True)
    first = scored_at(bundle)
    with pytest.raises(KeyboardInterrupt):
        train(
            manifest, bundle, plan=quick_plan(), device="cpu", cross_validate=True, overwrite=True,
            progress=interrupted(1),
        )  # fmt: skip
    again = scored_at(bundle)
    assert again[0] > first[0]
    assert again[1] == 0
    assert not list(bundle.with_name("bundle.training").glob("all/checkpoint.pt"))
    train(manifest, bundle, plan=quick_plan(), device="cpu", cross_validate=True, resume=True, overwrite=True)
    assert scored_at(bundle)[0] == again[0]
    assert scored_at(bundle)[1] > first[1]


def test_a_run_does_not_go_on_with_other_cases(tmp_path: Path) -> None:
    manifest, bundle = write_data_set(tmp_path / "data"), tmp_path / "bundle"
    train(manifest, bundle, plan=quick_plan(), device="cpu", folds=[0])
    content = json.loads(manifest.read_text())
    content["cases"][1]["fold"], content["cases"][2]["fold"] = 0, 1
    manifest.write_text(json.dumps(content))
    with pytest.raises(TrainingError, match=r"fold_0: begun with other cases .*\(case_1, case_2 added, taken away"):
        train(manifest, bundle, plan=quick_plan(), device="cpu", cross_validate=True, resume=True)
    train(manifest, bundle, plan=quick_plan(), device="cpu", cross_validate=True)
