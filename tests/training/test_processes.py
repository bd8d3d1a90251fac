"""Several processes train one network: as one would, killed and resumed, and all of them end when one fails."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.core.monitor import Monitor
from medseg.core.plan import Plan
from medseg.errors import ScanNotFound, TrainingError, UsageError
from medseg.training.datasets import batches
from medseg.training.loop import fit
from medseg.training.preparation import read_training_data
from medseg.training.team import Team, check_team, devices_of
from medseg.training.train import train
from medseg.transforms.augment import TrainingCase
from tests.plans import tiny_plan
from tests.training.cases import write_data_set
from tests.training.test_loop import cases

CPU = torch.device("cpu")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="starts processes with descriptors by /dev/fd, as Linux")


def trained_by(plan: Plan, **changes: object) -> Plan:
    return plan.model_copy(update={"training": plan.training.model_copy(update=changes)})


def cases_of_three_sizes() -> list[TrainingCase]:
    """Samples of them never lie in one tensor, so that a single process computes them one by one too."""
    made = []
    for side in (12, 16, 20):
        label = torch.zeros((1, side, side, side))
        label[:, 2:6, 3:6, 1:5] = 1
        image = label * 4 + torch.rand(label.shape, generator=torch.Generator().manual_seed(side))
        made.append(TrainingCase(f"side_{side}", image, label, (4.0,) * 3))
    return made


def plan_of_three_sizes() -> Plan:
    """One step of three samples: one process takes two of them, the other one."""
    return trained_by(tiny_plan(steps=1, patch_size=(20, 20, 20)), batch_size=3, variation_share=0.0)


def gradients(folder: Path) -> dict[int, torch.Tensor]:
    """What the optimizer holds of the first step: a tenth of its gradients."""
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 1
    return {number: state["exp_avg"] for number, state in saved["optimizer"]["state"].items()}


@on_linux
@pytest.mark.slow
def test_two_processes_compute_the_gradients_of_one(tmp_path: Path) -> None:
    plan = plan_of_three_sizes()
    told: list[tuple[int, int]] = []
    monitor = Monitor(lambda _stage, done, total: told.append((done, total)))
    for n in (1, 2):
        fit(cases_of_three_sizes(), plan, tmp_path / str(n), device=CPU, devices=n, monitor=monitor)
    one, two = gradients(tmp_path / "1"), gradients(tmp_path / "2")
    assert one.keys() == two.keys()
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    assert largest > 1e-3
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6 * largest
    logs = [json.loads((tmp_path / str(n) / "train.log").read_text()) for n in (1, 2)]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], abs=2e-5)
    assert told[-2:] == [(0, 1), (1, 1)]


def children() -> list[int]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(word) for word in path.read_text().split()]


@on_linux
@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_resumed_run_ends_with_the_same_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = set(children())  # of other tests
    plan = trained_by(tiny_plan(steps=40), batch_size=3, deep_supervision=True)
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={"dropout": 0.3})})
    whole = fit(cases(), plan, tmp_path / "whole", device=CPU, devices=2)
    killed_s = []

    def kill(_stage: str, done: int, _total: int) -> None:
        if done >= 7 and not killed_s:
            killed_s.append(time.monotonic())
            os.kill(children()[-1], signal.SIGKILL)

    with pytest.raises(TrainingError, match="process 1 of the training ended by SIGKILL"):
        fit(cases(), plan, tmp_path / "killed", device=CPU, devices=2, monitor=Monitor(kill))
    assert time.monotonic() - killed_s[0] < 10
    assert set(children()) <= others
    assert not list((tmp_path / "killed").glob(".tmp-*"))
    before = torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < before < 40
    with caplog.at_level(logging.INFO, "medseg"):
        resumed = fit(cases(), plan, tmp_path / "killed", device=CPU, devices=2, resume=True)
    assert f"goes on after step {before}" in caplog.text
    assert "differ" not in caplog.text
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@on_linux
@pytest.mark.slow
def test_the_error_of_one_process_is_the_error_of_the_training(tmp_path: Path) -> None:
    others = set(children())  # of other tests
    data = read_training_data(write_data_set(tmp_path / "data"))
    first, second = data.cases[:2]  # validated by process 0 and process 1
    second.scan.files[0][0].unlink()
    plan = trained_by(tiny_plan(steps=1), validate_every=1)
    with pytest.raises(ScanNotFound, match=second.case_id):
        fit(cases(), plan, tmp_path / "work", device=CPU, devices=2, validation=(first, second))
    assert set(children()) <= others


@on_linux
@pytest.mark.slow
def test_members_validated_by_two_processes_make_a_bundle(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data", n_cases=6, n_folds=3)
    plan = trained_by(tiny_plan(steps=2), validate_every=1)
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={"members": 2})})
    bundle = train(manifest, tmp_path / "bundle", plan=plan, device="cpu", devices=2)
    work = tmp_path / "bundle.training" / "all"
    for member in range(2):
        lines = (work / f"member_{member}" / "train.log").read_text().splitlines()
        assert [("dice" in json.loads(line), json.loads(line)["step"]) for line in lines] == [(True, 1), (True, 2)]
    assert (bundle / "models" / "model.pt").is_file()
    assert (work / "processes.log").read_text() == ""


@on_linux
@pytest.mark.slow
def test_an_interrupt_ends_all_processes(tmp_path: Path) -> None:
    manifest = write_data_set(tmp_path / "data")
    (tmp_path / "plan.json").write_text(trained_by(tiny_plan(steps=100_000)).to_json())
    words = ["train", manifest, "-o", tmp_path / "bundle", "--plan", tmp_path / "plan.json", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "medseg", *map(str, words), "--devices", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    checkpoint = tmp_path / "bundle.training" / "all" / "checkpoint.pt"
    try:
        while not checkpoint.is_file():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert shown.rstrip().endswith("Interrupted.")
    assert len(workers) == 2
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert not list(checkpoint.parent.glob(".tmp-*"))


def test_a_team_sees_the_samples_of_one_process() -> None:
    plan = trained_by(tiny_plan(), batch_size=5)
    whole = next(batches(cases(), [], plan, 3))
    shares = [next(batches(cases(), [], plan, 3, Team(rank, 3))) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 1]
    for number, (image, label) in enumerate(whole):
        own_image, own_label = shares[number % 3][number // 3]
        assert torch.equal(image, own_image)
        assert torch.equal(label, own_label)


def test_what_several_devices_cannot_train_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"2 sample\(s\) cannot be shared out among 3 devices.*--batch-size"):
        check_team(tiny_plan(), 3)
    plan = tiny_plan()
    with_batch_norm = plan.model_copy(update={"network": plan.network.model_copy(update={"norm": "batch"})})
    check_team(with_batch_norm, 1)
    with pytest.raises(TrainingError, match="batch norm"):
        check_team(with_batch_norm, 2)
    manifest = write_data_set(tmp_path / "data")
    for changes, expected in (({"devices": 3}, "3 devices"), ({"devices": 0}, "1 device or more")):
        with pytest.raises((TrainingError, UsageError), match=expected):
            train(manifest, tmp_path / "bundle", plan=plan, device="cpu", **changes)  # type: ignore[arg-type]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(UsageError, match="without torchrun"):
        train(manifest, tmp_path / "bundle", plan=plan, device="cpu")
    assert not (tmp_path / "bundle.training").exists()


def test_devices_are_the_first_that_cuda_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    cuda = torch.device("cuda")
    assert devices_of(CPU, 2) == (CPU, CPU)
    assert devices_of(torch.device("cuda:2"), 1) == (torch.device("cuda:2"),)
    assert devices_of(cuda, 2) == (torch.device("cuda:0"), torch.device("cuda:1"))
    with pytest.raises(UsageError, match="this machine shows 3"):
        devices_of(cuda, 4)
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES"):
        devices_of(torch.device("cuda:1"), 2)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_cuda_devices_compute_the_gradients_of_one(tmp_path: Path) -> None:
    plan = plan_of_three_sizes()
    for n in (1, 2):
        fit(cases_of_three_sizes(), plan, tmp_path / str(n), device=torch.device("cuda"), devices=n)
    one, two = gradients(tmp_path / "1"), gradients(tmp_path / "2")
    assert np.mean([float((one[name] - two[name]).norm() / one[name].norm().clamp(min=1e-9)) for name in one]) < 1e-2
