"""Training killed by the system, ten times at moments that nobody chose, ends with the uninterrupted weights."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.core.plan import Plan
from tests.plans import tiny_plan

_N_KILLS = 10
_STEPS = 240


def _plan() -> Plan:
    plan = tiny_plan(steps=_STEPS)
    network = plan.network.model_copy(update={"dropout": 0.3})
    training = plan.training.model_copy(update={"checkpoint_every": 2})
    return plan.model_copy(update={"network": network, "training": training})


def _train(folder: str) -> None:
    from medseg.training.loop import fit
    from tests.training.test_loop import cases

    torch.set_num_threads(1)
    weights = fit(cases(), _plan(), Path(folder), device=torch.device("cpu"), resume=True)
    torch.save(weights, Path(folder, "weights.pt"))


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_ten_times_at_random_ends_with_the_same_weights(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")  # a process that has torch already, so that each start is quick
    context.set_forkserver_preload(["medseg.training.loop", "tests.training.test_loop"])

    def start(name: str) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=_train, args=(str(tmp_path / name),))
        process.start()
        return process

    start("warm_up").join()
    began = time.monotonic()
    whole_run = start("whole")
    while not (tmp_path / "whole" / "checkpoint.pt").is_file():
        assert whole_run.is_alive()
        time.sleep(0.01)
    first = time.monotonic() - began
    whole_run.join()
    share = (time.monotonic() - began - first) / (2 * _N_KILLS)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    seed = secrets.randbits(32)
    rng = np.random.default_rng(seed)
    for number in range(_N_KILLS):
        before = _written(checkpoint)
        process = start("killed")
        if rng.random() < 0.8:  # the others: before this run has written anything
            while _written(checkpoint) == before and process.is_alive():
                time.sleep(0.001)
            time.sleep(float(rng.uniform(0.0, share)))
        else:
            time.sleep(float(rng.uniform(0.0, 0.9 * first)))
        assert process.is_alive(), f"ended with {process.exitcode} before kill {number} (seed {seed})"
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert checkpoint.is_file(), f"no kill came after a checkpoint (seed {seed})"
    last = start("killed")
    last.join()
    assert last.exitcode == 0
    whole, killed = (torch.load(tmp_path / name / "weights.pt", weights_only=True) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole), f"seed {seed}"
