"""Killed anywhere, training goes on to the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from medseg.core.monitor import Monitor
from medseg.core.plan import Plan
from medseg.errors import InvalidPlan, TrainingError
from medseg.networks.build import build_member
from medseg.training.datasets import batches
from medseg.training.loop import _fresh_state, fit, learning_rate
from medseg.training.preparation import check_network
from medseg.transforms.augment import TrainingCase
from tests.plans import tiny_plan

CPU = torch.device("cpu")


def cases(n: int = 3) -> list[TrainingCase]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(n):
        label = torch.zeros((1, 18, 18, 18))
        label[:, 5:11, 6:12, 4 + number : 10 + number] = 1
        made.append(
            TrainingCase(f"case_{number}", label * 4 + torch.rand(label.shape, generator=generator), label, (4.0,) * 3)
        )
    return made


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_killed_and_resumed_ends_with_the_same_weights(tmp_path: Path, killed_after: int) -> None:
    plan = tiny_plan(steps=6)
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={"dropout": 0.3})})
    whole = fit(cases(), plan, tmp_path / "whole", device=CPU)

    def kill(_stage: str, done: int, _total: int) -> None:
        if done == killed_after:
            raise Killed

    with pytest.raises(Killed):
        fit(cases(), plan, tmp_path / "killed", device=CPU, monitor=Monitor(kill))
    resumed = fit(cases(), plan, tmp_path / "killed", device=CPU, resume=True)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_members_of_an_ensemble_are_trained_from_seeds_of_their_own(tmp_path: Path) -> None:
    plan = tiny_plan(steps=2, seed=5)
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={"members": 2})})
    joined = fit(cases(), plan, tmp_path / "joined", device=CPU)
    for number in range(2):
        alone = fit(cases(), tiny_plan(steps=2, seed=5 + number), tmp_path / str(number), device=CPU)
        assert all(torch.equal(joined[f"{number}.{name}"], tensor) for name, tensor in alone.items())
    resumed = fit(cases(), plan, tmp_path / "joined", device=CPU, resume=True)
    assert all(torch.equal(joined[name], resumed[name]) for name in joined)


@pytest.mark.parametrize("instance_heads", [False, True])
def test_deep_supervision_leaves_no_weights_behind_and_is_resumed(tmp_path: Path, instance_heads: bool) -> None:
    plan = supervised_plan(instance_heads)
    whole = fit(cases(), plan, tmp_path / "whole", device=CPU)
    assert whole.keys() == build_member(plan).state_dict().keys()
    heads = [
        torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)["lower_heads"],
        _fresh_state(plan, CPU).supervised.heads.state_dict(),  # type: ignore[union-attr]
    ]
    assert all(not torch.equal(heads[0][name], heads[1][name]) for name in heads[1])

    def kill(_stage: str, done: int, _total: int) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        fit(cases(), plan, tmp_path / "killed", device=CPU, monitor=Monitor(kill))
    resumed = fit(cases(), plan, tmp_path / "killed", device=CPU, resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    plain = plan.model_copy(update={"training": plan.training.model_copy(update={"deep_supervision": False})})
    without = fit(cases(), plain, tmp_path / "without", device=CPU)
    assert any(not torch.equal(whole[name], without[name]) for name in whole)
    with pytest.raises(TrainingError, match="another plan"):
        fit(cases(), plain, tmp_path / "whole", device=CPU, resume=True)


def supervised_plan(instance_heads: bool = False) -> Plan:
    plan = tiny_plan(steps=4)
    return plan.model_copy(
        update={
            "network": plan.network.model_copy(update={"instance_heads": instance_heads}),
            "training": plan.training.model_copy(update={"deep_supervision": True}),
        }
    )


def test_deep_supervision_of_heads_alone_or_of_two_levels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="whole network"):
        fit(cases(), supervised_plan(), tmp_path, device=CPU, given={})
    plan = supervised_plan()
    shallow = plan.model_copy(update={"network": plan.network.model_copy(update={"filters": (4, 8), "strides": (2,)})})
    with pytest.raises(InvalidPlan, match="three levels or more; this one has 2"):
        check_network(shallow)


def test_loss_falls_and_is_logged(tmp_path: Path) -> None:
    plan = tiny_plan(steps=100)
    fit(cases(), plan, tmp_path, device=CPU)
    lines = [json.loads(line) for line in (tmp_path / "train.log").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 100]
    assert lines[1]["loss"] < lines[0]["loss"]


def test_batches_follow_from_seed_and_step_alone() -> None:
    plan = tiny_plan()
    source = batches(cases(), [], plan, 0)
    third = [next(source) for _ in range(3)][2]
    jumped = next(batches(cases(), [], plan, 2))
    for (image, label), (again, label_again) in zip(third, jumped, strict=True):
        assert torch.equal(image, again)
        assert torch.equal(label, label_again)


def drawn_cases(monkeypatch: pytest.MonkeyPatch, plan: Plan, n_steps: int) -> list[str]:
    """Names of the cases that the first steps draw from."""
    names: list[str] = []
    monkeypatch.setattr("medseg.training.datasets.draw_sample", lambda case, *_: names.append(case.case_id))
    source = batches(cases(), [TrainingCase("phantom", *[torch.zeros(1, 4, 4, 4)] * 2, (4.0,) * 3)], plan, 0)
    for _ in range(n_steps):
        next(source)
    return names


def test_every_epoch_goes_through_all_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = drawn_cases(monkeypatch, tiny_plan(), 6)
    assert [sorted(drawn[n : n + 3]) for n in range(0, 12, 3)] == [["case_0", "case_1", "case_2"]] * 4
    assert len({tuple(drawn[n : n + 3]) for n in range(0, 12, 3)}) > 1


def test_phantoms_come_in_between_at_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan()
    plan = plan.model_copy(update={"training": plan.training.model_copy(update={"phantom_share": 0.25})})
    drawn = drawn_cases(monkeypatch, plan, 200)
    assert 0.18 < drawn.count("phantom") / len(drawn) < 0.32


def test_learning_rate_warms_up_and_ends_near_zero() -> None:
    plan = tiny_plan(steps=100).training.model_copy(update={"warmup_steps": 10, "learning_rate": 1.0})
    assert learning_rate(0, plan) == pytest.approx(0.1)
    assert learning_rate(10, plan) == pytest.approx(0.975, abs=0.01)
    assert learning_rate(50, plan) == pytest.approx(0.5)
    assert learning_rate(99, plan) < 1e-3


def test_nothing_to_train_on_and_a_loss_that_is_not_finite_are_errors(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no case"):
        fit([], tiny_plan(), tmp_path, device=CPU)
    broken = [TrainingCase("a", torch.full((1, 18, 18, 18), float("nan")), cases(1)[0].label, (4.0, 4.0, 4.0))]
    with pytest.raises(TrainingError, match="loss is nan at step 1"):
        fit(broken, tiny_plan(), tmp_path, device=CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_trains_the_same_code(tmp_path: Path) -> None:
    weights = fit(cases(), tiny_plan(steps=4), tmp_path, device=torch.device("cuda"))
    assert all(tensor.device.type == "cpu" and bool(tensor.float().isfinite().all()) for tensor in weights.values())
