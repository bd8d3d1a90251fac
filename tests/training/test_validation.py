"""Validation while training keeps the best weights, ends in time, and survives a kill."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.core.monitor import Monitor
from medseg.core.plan import Plan, with_changes
from medseg.errors import InvalidPlan, TrainingError, UsageError
from medseg.io.labelled_cases import LabelledCase, read_cases
from medseg.io.manifest import read_manifest
from medseg.training.datasets import load_case
from medseg.training.loop import fit
from medseg.training.train import train
from medseg.training.training_log import read_log
from medseg.training.validation import ValidationScores, cases_to_fit, reference_lesions, validate
from tests.plans import tiny_plan
from tests.training.cases import write_data_set
from tests.training.test_loop import Killed

CPU = torch.device("cpu")


def validating(steps: int = 6, **changes: int) -> Plan:
    plan = tiny_plan(steps=steps)
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={"dropout": 0.3})})
    return with_changes(plan, {"training": {"validate_every": 2, **changes}})


def labelled(folder: Path, n_cases: int = 4, n_folds: int = 2) -> list[LabelledCase]:
    manifest, root = read_manifest(write_data_set(folder, n_cases, n_folds), None)
    return read_cases(manifest, root)


def without_time(folder: Path) -> list[dict[str, object]]:
    return [{name: v for name, v in line.items() if "seconds" not in name} for line in read_log(folder)]


@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_killed_and_resumed_validates_to_the_same_weights_and_log(tmp_path: Path, killed_after: int) -> None:
    cases, plan = labelled(tmp_path / "data"), validating(checkpoint_every=3)
    loaded = [load_case(case, plan) for case in cases[:2]]
    whole = fit(loaded, plan, tmp_path / "whole", device=CPU, validation=cases[2:])

    def kill(_stage: str, done: int, _total: int) -> None:
        if done == killed_after:
            raise Killed

    with pytest.raises(Killed):
        fit(loaded, plan, tmp_path / "killed", device=CPU, validation=cases[2:], monitor=Monitor(kill))
    with (tmp_path / "killed" / "train.log").open("a") as log:
        log.write('{"step": 6, "dice": 0.99, "is_best": true}\n{"step": 6, "di')  # as a later kill leaves it
    resumed = fit(loaded, plan, tmp_path / "killed", device=CPU, validation=cases[2:], resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert without_time(tmp_path / "killed") == without_time(tmp_path / "whole")
    assert [line["step"] for line in without_time(tmp_path / "whole")] == [2, 4, 6]


def scores_of(*values: float) -> object:
    given = iter(values)
    return lambda *_: ValidationScores(next(given), 0.5)


def test_the_best_weights_are_kept_and_patience_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, plan = labelled(tmp_path / "data"), validating(steps=20, patience=2)
    loaded = [load_case(case, plan) for case in cases[:2]]
    monkeypatch.setattr("medseg.training.loop.validate", scores_of(0.1, 0.7, 0.7, 0.2))
    kept = fit(loaded, plan, tmp_path / "early", device=CPU, validation=cases[2:])
    log = read_log(tmp_path / "early")
    assert [(line["step"], line["is_best"]) for line in log] == [(2, True), (4, True), (6, False), (8, False)]
    again = fit(loaded, plan, tmp_path / "early", device=CPU, validation=cases[2:], resume=True)
    assert read_log(tmp_path / "early") == log  # a training that has ended does not go on
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    saved = torch.load(tmp_path / "early" / "checkpoint.pt", weights_only=True)
    assert saved["best"]["step"] == 4
    assert any(not torch.equal(saved["average"][name], kept[name]) for name in kept)


def test_a_network_that_finds_everything_scores_1_and_one_that_finds_nothing_0(tmp_path: Path) -> None:
    cases, plan = labelled(tmp_path / "data"), validating(steps=150, validate_every=75)
    loaded = [load_case(case, plan) for case in cases[:3]]
    weights = fit(loaded, plan, tmp_path / "run", device=CPU, validation=cases[3:])
    scores = validate(weights, plan, cases[3:], CPU)
    logged = [line for line in read_log(tmp_path / "run") if line.get("is_best")][-1]
    assert (round(scores.dice, 5), round(scores.lesion_f1, 5)) == (logged["dice"], logged["lesion_f1"])
    assert scores.dice > 0.8
    assert scores.lesion_f1 == 1.0
    blind = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    assert validate(blind, plan, cases[3:], CPU) == ValidationScores(0.0, 0.0)


def test_the_csv_holds_what_the_json_lines_hold(tmp_path: Path) -> None:
    cases, plan = labelled(tmp_path / "data"), validating()
    fit([load_case(cases[0], plan)], plan, tmp_path / "run", device=CPU, validation=cases[1:])
    with (tmp_path / "run" / "train.csv").open(newline="") as file:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    lines = read_log(tmp_path / "run")
    assert rows == [{name: str(value) for name, value in line.items()} for line in lines]
    assert {"loss", "learning_rate", "seconds", "dice", "lesion_f1", "validation_seconds", "is_best"} < set(rows[-1])


def test_nobody_is_validated_on_who_is_scored_or_trained_on(tmp_path: Path) -> None:
    plan, cases = validating().training, labelled(tmp_path, n_cases=6, n_folds=3)
    for held_out, expected in ((0, 1), (1, 2), (2, 0), (None, 2)):
        training, validation = cases_to_fit(cases, [], plan, held_out)
        assert {case.fold for case in validation} == {expected}
        assert {case.fold for case in training} == {0, 1, 2} - {expected, held_out}
    own = [replace(cases[0], case_id="v", split="validation", fold=None)]
    assert cases_to_fit(cases, own, plan, 1) == ([c for c in cases if c.fold != 1], own)
    never = tiny_plan().training
    assert cases_to_fit(cases, own, never, None) == (cases, [])


def test_too_few_folds_and_an_empty_validation_are_refused_before_training(tmp_path: Path) -> None:
    plan, cases = validating().training, labelled(tmp_path, n_cases=4, n_folds=2)
    with pytest.raises(TrainingError, match=r"0 case\(s\) would be left to train on.*at least three folds"):
        cases_to_fit(cases, [], plan, 0)
    with pytest.raises(TrainingError, match="validate_every 0"):
        cases_to_fit([replace(case, fold=None) for case in cases], [], plan)
    empty = replace(cases[0].reference, array=np.zeros_like(cases[0].reference.array))
    with pytest.raises(TrainingError, match=r"no lesion is marked.*\(v\)"):
        cases_to_fit(cases, [replace(cases[0], case_id="v", reference=empty)], plan)
    with pytest.raises(UsageError, match="patience of 3 counts validations"):
        cases_to_fit(cases, [], validating(validate_every=0, patience=3).training)
    with pytest.raises(InvalidPlan, match=r"training\.patience"):
        validating(patience=-1)
    with pytest.raises(TrainingError, match="no case to validate on"):
        fit([load_case(cases[0], validating())], validating(), tmp_path / "run", device=CPU)


def test_lesions_of_a_reference_go_by_their_numbers_where_these_are_known(tmp_path: Path) -> None:
    case = labelled(tmp_path, n_cases=1)[0]
    assert reference_lesions(case).n_lesions == 1
    halves = case.reference.array.astype(np.uint8)
    halves[: int(np.argwhere(halves)[:, 0].mean())] *= 7
    halved = reference_lesions(replace(case, lesions=halves))
    assert halved.n_lesions == 2
    assert [lesion.class_name for lesion in halved.lesions] == ["tumor", "tumor"]


def test_a_bundle_says_how_its_weights_were_chosen(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data", n_cases=4)
    content = json.loads(manifest.read_text())
    content["cases"][3] |= {"split": "validation", "fold": None}
    manifest.write_text(json.dumps(content))
    plan = with_changes(tiny_plan(steps=4), {"training": {"variation_share": 0.25}})
    bundle = train(
        manifest, tmp_path / "bundle", plan=plan, device="cpu", validate_every=2, patience=1, cross_validate=True
    )
    card = (bundle / "docs" / "README.md").read_text()
    assert "flips, and in 25 % of the samples rotations, scalings" in card
    assert "Every 2 steps, scans that are not trained on were segmented whole" in card
    assert json.loads((bundle / "configs" / "plan.json").read_text())["training"]["validate_every"] == 2
    for part in ("all", "fold_0", "fold_1"):
        assert any("dice" in line for line in read_log(tmp_path / "bundle.training" / part))


def test_a_plan_without_validation_keeps_the_hash_that_it_had(tmp_path: Path) -> None:
    before = tiny_plan()
    assert with_changes(before, {"training": {"validate_every": 0, "patience": 0}}).sha256 == before.sha256
    assert with_changes(before, {"training": {"validate_every": 5}}).sha256 != before.sha256


def test_cross_validation_leaves_a_page_with_curves_cases_and_pictures(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data", n_cases=6, n_folds=3)
    bundle = train(
        manifest, tmp_path / "bundle", plan=tiny_plan(steps=4), device="cpu", validate_every=2, cross_validate=True
    )
    page = (tmp_path / "bundle.training" / "cross_validation.html").read_text()
    scores = json.loads((bundle / "docs" / "cross_validation.json").read_text())["cases"]
    assert all(f"<th>{case['case_id']}</th>" in page for case in scores)
    assert page.count("<svg") == 2 * 3
    assert page.count("data:image/webp;base64,") == 2 * 4
    worst = min(scores, key=lambda case: (case["dice"], case["case_id"]))["case_id"]
    assert f"{worst}, Dice" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert not list(bundle.rglob("*.html"))
