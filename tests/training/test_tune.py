"""From an aim to a bundle at its operating point, without training or running a network twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import medseg
from medseg.core.labels import LabelScheme
from medseg.core.plan import Plan, with_changes
from medseg.errors import InvalidBundle, OutputExists, TrainingError, UsageError
from medseg.evaluation.case import evaluate_case
from medseg.inference.segmenter import Segmenter
from medseg.models.lesions_config import lesions_config
from medseg.networks.build import build_network
from medseg.training.finetune import finetune
from medseg.training.held_out import read_held_out
from medseg.training.loop import fit
from medseg.training.operating_point import OperatingPoint
from medseg.training.train import train
from medseg.training.tune import POINT_PATH, tune
from tests.plans import tiny_plan
from tests.training.cases import listed, write_data_set

CPU = torch.device("cpu")
AIM = "false positives <= 0.5"


def quick_plan() -> Plan:
    return with_changes(tiny_plan(steps=40), {"inference": {"least_peak": 1.0}})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle at an operating point, beside its data and its work folder."""
    folder = tmp_path_factory.mktemp("tuned")
    manifest = write_data_set(folder / "data", n_cases=6, n_folds=3)
    return train(manifest, folder / "bundle", plan=quick_plan(), device="cpu", cross_validate=True, aim=AIM)


@pytest.fixture
def bundle(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(trained.parent, tmp_path / "own")
    return tmp_path / "own" / "bundle"


def plan_of(bundle: Path) -> Plan:
    return Plan.from_json((bundle / "configs" / "plan.json").read_text())


def point_of(bundle: Path) -> OperatingPoint:
    return OperatingPoint.model_validate_json((bundle / POINT_PATH).read_text())


def test_the_bundle_is_written_at_the_point_and_says_how_it_was_chosen(trained: Path) -> None:
    point, plan = point_of(trained), plan_of(trained)
    before = Plan.from_json((trained.parent / "bundle.training" / "plan.json").read_text())
    assert before == quick_plan()  # what is trained by does not change
    assert point.chosen.settings.changes(point.before.settings)
    assert plan == point.applied(before) != before
    assert (str(point.aim), point.is_met, point.chosen.figures.n_cases, point.n_folds) == (AIM, True, 6, 3)
    card = (trained / "docs" / "README.md").read_text()
    page = (trained.parent / "bundle.training" / "cross_validation.html").read_text()
    assert card.count("## Operating point") == page.count(">Operating point<") == 1
    for text in (card, page):
        assert "optimistic: chosen on these cases" in text
        assert "6 held-out cases with 6 lesions from 3 fold(s)" in text
    threshold = plan.inference.foreground_threshold
    assert threshold is not None
    config = json.loads((trained / "configs" / "inference.json").read_text())
    assert f"> {threshold!r}" in json.dumps(config["postprocessing"])
    lesions = json.loads((trained / "configs" / "lesions.json").read_text())
    assert lesions == json.loads(json.dumps(lesions_config(plan)))
    assert medseg.load_segmenter(trained, device="cpu").recipe.output.foreground_threshold == threshold


def test_the_figures_are_those_of_segmenting_the_held_out_cases_at_the_point(trained: Path) -> None:
    folder, point = trained.parent, point_of(trained)
    work = folder / "bundle.training"
    found = []
    for case in range(6):
        network = build_network(quick_plan())
        network.load_state_dict(fit([None], quick_plan(), work / f"fold_{case % 3}", device=CPU, resume=True))
        for chosen in (point.before, point.chosen):
            segmenter = Segmenter(network, chosen.settings.applied(quick_plan()), device="cpu", precision="exact")
            scan = medseg.read_scan(folder / "data" / f"case_{case}" / "image.nii.gz")
            semantic, _ = segmenter.segment(medseg.load_volume(scan, units="suv"))
            reference = medseg.read_semantic(folder / "data" / f"case_{case}" / "label.nii.gz")
            lesions = medseg.separate_lesions(semantic, segmenter.recipe.separation)
            found.append(evaluate_case(lesions, medseg.separate_lesions(reference), overlap_only=True))
    for scores, tried in ((found[::2], point.before), (found[1::2], point.chosen)):
        for name in ("tp", "fp", "fn"):
            assert sum(getattr(one, name) for one in scores) == getattr(tried.figures, name)
        assert tried.figures.dice == pytest.approx(np.mean([one.dice for one in scores if one.dice is not None]))


def test_another_aim_gives_what_training_with_it_gives(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = (bundle / "models" / "model.pt").read_bytes()
    point = tune(bundle, "sensitivity >= 0.2", overwrite=True)
    tuned = {path.name: path.read_bytes() for path in bundle.rglob("*.*") if path.suffix in (".json", ".md")}
    assert point_of(bundle) == point
    assert (bundle / "models" / "model.pt").read_bytes() == weights
    monkeypatch.setattr("medseg.training.cross_validation._Trained.score", None)  # nothing is segmented again
    work = bundle.parent / "bundle.training"
    options = {"plan": quick_plan(), "device": "cpu", "cross_validate": True, "resume": True, "work_dir": work}
    again = train(bundle.parent / "data/manifest.json", bundle.parent / "again", aim="sensitivity>=0.2", **options)
    written = {path.name: path.read_bytes() for path in again.rglob("*.*") if path.suffix in (".json", ".md")}
    assert written == tuned
    untouched = train(bundle.parent / "data/manifest.json", bundle.parent / "without", **options)
    assert plan_of(untouched) == quick_plan()
    assert not (untouched / POINT_PATH).exists()


def test_a_dry_run_writes_nothing_and_a_point_is_replaced_only_on_request(bundle: Path) -> None:
    before = {path: path.read_bytes() for path in bundle.parent.rglob("*") if path.is_file()}
    tune(bundle, "dice", dry_run=True)
    with pytest.raises(OutputExists, match="--overwrite"):
        tune(bundle, "dice")
    assert {path: path.read_bytes() for path in bundle.parent.rglob("*") if path.is_file()} == before


def test_folds_from_before_are_segmented_again_and_not_trained(bundle: Path, trained: Path) -> None:
    work = bundle.parent / "bundle.training"
    for fold in (0, 2):
        shutil.rmtree(work / f"fold_{fold}" / "held_out")
    with pytest.raises(TrainingError, match=r"fold_0: not all .* was kept.*--resume segments them again"):
        tune(bundle, "dice", overwrite=True)
    logs = {path: path.read_bytes() for path in work.rglob("train.log")}  # with the seconds that steps took
    options = {"plan": quick_plan(), "device": "cpu", "cross_validate": True, "resume": True, "overwrite": True}
    again = train(bundle.parent / "data/manifest.json", bundle, aim=AIM, **options)
    assert {path: path.read_bytes() for path in work.rglob("train.log")} == logs
    assert len(logs) == 4
    for path in (work / "fold_0/held_out").iterdir():
        assert path.read_bytes() == (trained.parent / "bundle.training/fold_0/held_out" / path.name).read_bytes()
    assert point_of(again) == point_of(trained)


def test_an_aim_out_of_reach_is_said_and_the_nearest_is_taken(bundle: Path) -> None:
    class Hears:
        def __init__(self) -> None:
            self.remarks: list[str] = []

        def __call__(self, *_: object) -> None:
            pass

        def remark(self, text: str) -> None:
            self.remarks.append(text)

    hears = Hears()
    for fold in (bundle.parent / "bundle.training").glob("fold_*"):  # halves of what there is to find, never found
        for path in (fold / "held_out").iterdir():
            arrays = dict(np.load(path))
            arrays["likeliest"][...] = arrays["decided"][...] = 0
            np.savez_compressed(path, **arrays)
    point = tune(bundle, "sensitivity >= 1", overwrite=True, progress=hears)
    assert not point.is_met
    assert "None of the" in hears.remarks[0]
    assert "the nearest ones were chosen" in (bundle / "docs" / "README.md").read_text()


def test_what_cannot_be_tuned_is_refused_with_the_reason(bundle: Path, tmp_path: Path) -> None:
    manifest = bundle.parent / "data" / "manifest.json"
    with pytest.raises(UsageError, match="--cross-validate"):
        train(manifest, tmp_path / "b", plan=quick_plan(), aim=AIM)
    with pytest.raises(UsageError, match="--cross-validate"):
        finetune(bundle, manifest, tmp_path / "b", aim=AIM)
    with pytest.raises(UsageError, match="no such aim"):
        train(manifest, tmp_path / "b", plan=quick_plan(), aim="the best", cross_validate=True)
    assert not (tmp_path / "b.training").exists()
    with pytest.raises(UsageError, match="none: no such folder"):
        tune(tmp_path / "none", AIM)
    with pytest.raises(InvalidBundle):
        tune(manifest.parent, AIM)
    with pytest.raises(TrainingError, match=r"elsewhere: no folds there.*--work-dir"):
        tune(bundle, AIM, work_dir=tmp_path / "elsewhere", overwrite=True)
    bare = train(manifest, tmp_path / "bare", plan=with_changes(quick_plan(), {"training": {"steps": 1}}), device="cpu")
    with pytest.raises(TrainingError, match="no fold was cross-validated there"):
        tune(bare, AIM)
    work = bundle.parent / "bundle.training"
    (work / "plan.json").write_text(with_changes(quick_plan(), {"training": {"steps": 41}}).to_json())
    with pytest.raises(TrainingError, match="another model was trained there"):
        tune(bundle, AIM, overwrite=True)


def test_finetune_takes_an_aim_too(bundle: Path) -> None:
    manifest = bundle.parent / "data" / "manifest.json"
    tuned = finetune(bundle, manifest, bundle.parent / "on", device="cpu", steps=2, cross_validate=True, aim="dice")
    assert str(point_of(tuned).aim) == "dice"
    assert point_of(tuned).before.settings.applied(plan_of(bundle)) == plan_of(bundle)


@pytest.mark.parametrize("kind", ["two classes", "heads"])
def test_what_is_kept_gives_the_map_and_the_lesions_of_any_threshold(tmp_path: Path, kind: str) -> None:
    manifest = write_data_set(tmp_path / "data", n_cases=2)
    content = json.loads(manifest.read_text())
    plan = quick_plan()
    if kind == "two classes":
        content["labels"]["2"] = "edge"
        plan = plan.model_copy(update={"labels": LabelScheme(classes={1: "tumor", 2: "edge"})})
        for case in content["cases"]:
            path = tmp_path / "data" / case["label"]["path"]
            label = nib.load(path)
            array = np.asarray(label.dataobj).copy()
            array[:, :, ::2] *= 2
            nib.save(nib.Nifti1Image(array, label.affine), path)
            case["label"] = listed(tmp_path / "data", case["label"]["path"])
    else:
        plan = with_changes(plan, {"network": {"instance_heads": True}})
        content["cases"] = [case | {"lesions": "one"} for case in content["cases"]]
    manifest.write_text(json.dumps(content))
    work = train(manifest, tmp_path / "bundle", plan=plan, device="cpu", folds=[0], steps=30)
    plan = with_changes(plan, {"training": {"steps": 30}})
    case = read_held_out(work / "fold_0", "case_0")
    low, high = case.marked(0.1), case.marked(0.9)
    assert low.n_foreground_voxels > case.marked(None).n_foreground_voxels > high.n_foreground_voxels
    assert (low.evidence is not None) == (kind == "heads")
    network = build_network(plan)
    network.load_state_dict(fit([None], plan, work / "fold_0", device=CPU, resume=True))
    volume = medseg.load_volume(medseg.read_scan(tmp_path / "data/case_0/image.nii.gz"), units="suv")
    for threshold in (None, 0.1, 0.4, 0.9):
        changes = {"least_peak": None, "foreground_threshold": threshold}
        segmenter = Segmenter(network, with_changes(plan, {"inference": changes}), device="cpu", precision="exact")
        whole, _ = segmenter.segment(volume)
        kept = case.marked(threshold)
        assert set(np.unique(kept.array)) == set(np.unique(whole.array))
        assert np.count_nonzero(kept.array) == np.count_nonzero(whole.array)
        lesions = [medseg.separate_lesions(semantic, plan.separation) for semantic in (kept, whole)]
        counts = [np.bincount(one.array.ravel())[1:].tolist() for one in lesions]
        assert counts[0] == counts[1] != []
        assert lesions[0].lesions == lesions[1].lesions
