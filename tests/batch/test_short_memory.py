"""A worker that really runs out of memory: the limit of its process (`ulimit -v`) is lowered under its feet."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medseg.models.bundle import PLAN_PATH
from tests.io.nifti_files import save

SITE = '''
import gc, logging, os, resource, sys
from pathlib import Path

MIB = 2**20


def leave(mib):
    """Let this process take so much more memory, and no more."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + mib * MIB, resource.RLIM_INFINITY))


class Thief(logging.Handler):
    """Others take the memory when the first try has been found to fit, once."""

    is_done = False

    def emit(self, record):
        if "MiB of memory" in record.getMessage() and not self.is_done:
            self.is_done = True
            leave(4)


def relieve(phase, _):
    """Some of it comes back when a case is tried again with less: that begins with a collection."""
    if phase == "start" and sys._getframe(1).f_code.co_name == "do":
        leave(1350)


if "medseg.batch.worker" in sys.orig_argv:
    log = logging.getLogger("medseg.inference.run")
    log.setLevel(logging.INFO)
    log.addHandler(Thief())
    gc.callbacks.append(relieve)
'''
"""What a worker runs as it starts (sitecustomize)."""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc, to know what a process holds")
def test_a_case_that_runs_out_of_memory_is_done_smaller_and_gives_the_same(tmp_path: Path, tiny_bundle: Path) -> None:
    model = shutil.copytree(tiny_bundle, tmp_path / "model")
    plan = json.loads((model / PLAN_PATH).read_text())
    plan["inference"] |= {"patch_size": [64, 64, 64], "windows_per_batch": 27}
    (model / PLAN_PATH).write_text(json.dumps(plan))
    array = np.ones((136, 136, 136), dtype=np.float32)
    array[30:40, 30:40, 30:50] = 12.0
    (tmp_path / "in").mkdir()
    save(array, tmp_path / "in" / "scan.nii")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    result, events = batch(tmp_path / "in", model, tmp_path / "short", {"PYTHONPATH": path})
    assert events == ["found", "start", "start", "done", "end"]
    assert result["n_done"] == 1
    notes = json.loads((tmp_path / "short" / "scan" / "result.json").read_text())["provenance"]["notes"]
    assert [note for note in notes if "to stay within the memory limit: 1 window(s) a batch" in note], notes
    _, events = batch(tmp_path / "in", model, tmp_path / "enough", {})
    assert events == ["found", "start", "done", "end"]
    for name in ("scan/lesions.csv", "scan/lesions.nii.gz", "scan/semantic.nii.gz", "lesions.parquet"):
        short, enough = ((tmp_path / run / name).read_bytes() for run in ("short", "enough"))
        assert (gzip.decompress(short) == gzip.decompress(enough)) if name.endswith(".gz") else (short == enough)


def batch(archive: Path, model: Path, output: Path, environment: dict[str, str]) -> tuple[dict[str, object], list[str]]:
    """Run the command: what it prints, and the events in order."""
    words = ["--device", "cpu", "--engine", "torch", "--precision", "exact", "--json"]  # others run windows one by one
    done = subprocess.run(
        [str(w) for w in (sys.executable, "-m", "medseg", "batch", archive, "--model", model, "-o", output, *words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr + (output / "workers.log").read_text()
    return json.loads(done.stdout), [json.loads(line)["event"] for line in done.stderr.splitlines()]
