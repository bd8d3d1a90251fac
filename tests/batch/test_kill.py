"""Processes killed at random moments: after the last resume, the tables are those of a run that nothing disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import medseg
from tests.batch.archives import make_archive, tables, temporary_files


def start(archive: Path, model: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "medseg", "batch", archive, "--model", model, "-o", output, "--resume", "--json"]
    return subprocess.Popen(
        [str(word) for word in [*command, "--engine", "torch", "--precision", "float32", "--device", "cpu"]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_now_and_then(archive: Path, model: Path, output: Path, n_kills: int) -> dict[str, int]:
    """Run and resume, killing the run or its worker by SIGKILL, until that was done often enough; how often each."""
    rng = np.random.default_rng(20)
    kills = {"run": 0, "worker": 0}
    while sum(kills.values()) < n_kills:
        process = start(archive, model, output)
        assert process.stderr is not None
        left = rng.integers(1, 4)
        for line in process.stderr:
            event = json.loads(line)
            left -= event["event"] == "start"
            if left > 0 or event["event"] != "start" or sum(kills.values()) == n_kills:
                continue
            time.sleep(rng.uniform(0.0, 0.4))
            whom = "run" if rng.random() < 0.7 else "worker"
            os.kill(process.pid if whom == "run" else event["worker"], signal.SIGKILL)
            kills[whom] += 1
            left = rng.integers(2, 5)
        process.stderr.close()
        assert process.wait() in (-signal.SIGKILL, 0, 1)
    return kills


@pytest.mark.parametrize(("n_scans", "n_bad", "n_kills"), [(10, 3, 3), pytest.param(54, 6, 20, marks=pytest.mark.slow)])
def test_killed_and_resumed_is_the_same_as_undisturbed(
    tmp_path: Path, tiny_bundle: Path, n_scans: int, n_bad: int, n_kills: int
) -> None:
    archive = make_archive(tmp_path / "in", n_scans, n_bad)
    how = {"device": "cpu", "engine": "torch", "precision": "float32"}
    undisturbed = medseg.run_archive(archive, tiny_bundle, tmp_path / "whole", **how)
    kills = kill_now_and_then(archive, tiny_bundle, tmp_path / "out", n_kills)
    assert sum(kills.values()) == n_kills
    resumed = medseg.run_archive(archive, tiny_bundle, tmp_path / "out", resume=True, **how)
    assert (resumed.n_done, resumed.n_failed) == (undisturbed.n_done, undisturbed.n_failed) == (n_scans, n_bad)
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")
    folders = [case["folder"] for case in pq.read_table(tmp_path / "out" / "cases.parquet").to_pylist()]
    assert len(set(folders)) == n_scans + n_bad
    present = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert present == {path.name for path in (tmp_path / "whole").iterdir() if path.is_dir()} <= set(folders)
    assert temporary_files(tmp_path / "out") == []
