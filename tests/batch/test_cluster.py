"""A Dask cluster does the cases: the same tables, whichever of its processes dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import medseg
from medseg.errors import ClusterError
from tests.batch.archives import make_archive, tables, temporary_files
from tests.batch.dask_cluster import LOOPBACK, dask_processes, free_port

distributed = pytest.importorskip("distributed", reason="no Dask here: pip install 'medseg[cluster]'")

HOW: dict[str, Any] = {"device": "cpu", "engine": "torch", "precision": "exact"}
WORDS = ("--device", "cpu", "--engine", "torch", "--precision", "exact")


@pytest.mark.slow
def test_a_killed_worker_and_a_scheduler_that_starts_again_lose_nothing(tmp_path: Path, tiny_bundle: Path) -> None:
    archive = make_archive(tmp_path / "in", 24, 3)
    medseg.run_archive(archive, tiny_bundle, tmp_path / "whole", **HOW)
    port = free_port()
    command = [sys.executable, "-m", "medseg", "batch", archive, "--model", tiny_bundle, "-o", tmp_path / "out"]
    command = [*command, "--scheduler", f"tcp://{LOOPBACK}:{port}", "--resume", "--json", *WORDS]
    with dask_processes(tmp_path) as dask:
        scheduler = dask.scheduler(port)
        workers = {
            name: dask.worker(port, "--nthreads", "2", "--resources", "GPU=2", "--name", name) for name in ("a", "b")
        }
        run = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert run.stderr is not None
        n_done = 0
        for line in run.stderr:
            n_done += line.startswith("{") and json.loads(line)["event"] == "done"
            if n_done == 4:  # each worker has more cases than are done
                break
        os.kill(workers[_one_with_a_case(port)].pid, signal.SIGKILL)
        for line in run.stderr:
            n_done += line.startswith("{") and json.loads(line)["event"] == "done"
            if n_done == 12:
                break
        os.kill(scheduler.pid, signal.SIGKILL)
        message = run.stderr.read()
        run.stderr.close()
        assert run.wait(timeout=120) == 1
        assert "is gone; start it again and go on with --resume" in message
        state = medseg_status(tmp_path / "out")
        assert 12 <= state["n_done"] < 24
        dask.scheduler(port)
        dask.worker(port, "--nthreads", "2")
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 1, done.stderr  # three scans are bad
        assert done.stderr.count('"skipped"') >= 12
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")
    assert temporary_files(tmp_path / "out") == []


def test_a_local_cluster_makes_the_same_tables_and_names_its_dashboard(tmp_path: Path, tiny_bundle: Path) -> None:
    archive = make_archive(tmp_path / "in", 4, 3)
    how = {**HOW, "mesh": "obj"}
    medseg.run_archive(archive, tiny_bundle, tmp_path / "whole", **how)
    events: list[Mapping[str, Any]] = []
    medseg.run_archive(
        archive, tiny_bundle, tmp_path / "out", scheduler="local", workers=1, on_event=events.append, **how
    )
    assert meshes(tmp_path / "out") == meshes(tmp_path / "whole") != []
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")
    (link,) = [event["dashboard"] for event in events if event["event"] == "cluster"]
    assert link.startswith(f"http://{LOOPBACK}:")


def meshes(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.glob("*/meshes/*"))


def test_a_scheduler_that_is_not_there_is_said(tmp_path: Path, tiny_bundle: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("medseg.batch.cluster._CONNECT_S", 1.0)
    archive = make_archive(tmp_path / "in", 1)
    with pytest.raises(ClusterError, match="cannot be reached"):
        medseg.run_archive(archive, tiny_bundle, tmp_path / "out", scheduler=f"tcp://{LOOPBACK}:{free_port()}", **HOW)


def medseg_status(output: Path) -> dict[str, Any]:
    from medseg.batch.status import archive_status

    return vars(archive_status(output))


def _one_with_a_case(port: int) -> str:
    """The name of a worker that has begun a case and not ended it."""
    with distributed.Client(f"tcp://{LOOPBACK}:{port}", set_as_default=False) as client:
        while True:
            info = client.scheduler_info()["workers"]
            for address, keys in client.processing().items():
                if address in info and any("medseg-case" in str(key) for key in keys):
                    return str(info[address]["name"])
            time.sleep(0.01)
