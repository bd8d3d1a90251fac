"""A batch of 20,000 tiny cases with a network that does nothing: what the batch itself costs, and its memory.

    python benchmarks/speed_archive.py [--cases 20000] [-o results.json]

Each number of cases (a tenth, then all of them) runs in a process of its own. In place of worker processes stands a
function that copies the files of one finished case under the next name; everything else is the run itself: the search
through the archive, the ledger, one state after another for each case, tables and page, then a second run that finds
everything done. Copying is the simulation's own cost and is told apart.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from medseg.batch.cases import find_cases
from medseg.batch.ledger import Files, Ledger
from medseg.batch.messages import CaseDone, Task
from medseg.batch.status import archive_status
from medseg.batch.tables import write_tables
from medseg.batch.work import Work
from medseg.io.hashes import sha256_of_file
from medseg.io.scan import hash_inputs


class Copying:
    """Workers whose network does nothing: each case gets the files of a finished one."""

    def __init__(self, finished: Path) -> None:
        self._finished = [path for path in finished.iterdir() if path.is_file()]
        self.seconds = 0.0
        self.n_done = 0

    def model(self) -> tuple[str, ...]:
        """Of no model."""
        return ("weights", "recipe")

    def work(
        self, tasks: Iterable[Task | None], on_start: Callable[[Task, int], None]
    ) -> Iterator[tuple[Task, CaseDone]]:
        """One case after the other."""
        for task in tasks:
            if task is None:
                continue
            on_start(task, 0)
            start = time.perf_counter()
            files = self._copied(task)
            self.seconds += time.perf_counter() - start
            self.n_done += 1
            yield task, CaseDone(hash_inputs(task.scan), files, 0.0)

    def _copied(self, task: Task) -> Files:
        task.folder.mkdir()
        files = {}
        for path in self._finished:
            copy = task.folder / path.name
            shutil.copyfile(path, copy)
            files[path.name] = (copy.stat().st_size, sha256_of_file(copy))
        return files


@contextmanager
def timed(costs: dict[str, float], name: str) -> Iterator[None]:
    """Seconds of the block, and the highest memory of the process so far."""
    start = time.perf_counter()
    yield
    costs[f"{name}_s"] = time.perf_counter() - start
    costs[f"{name}_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one_size(archive: Path, finished: Path, output: Path) -> dict[str, float]:
    """What two runs over an archive cost, step by step."""
    costs: dict[str, float] = {}
    output.mkdir()
    for run in ("first", "second"):
        with timed(costs, f"{run}_find"):
            cases = find_cases(archive, "salt")
        workers = Copying(finished)
        with Ledger(output, create=True) as ledger:
            work = Work(str(archive), output, ledger, lambda _: None)
            with timed(costs, f"{run}_ledger"):
                ledger.forget_gone({case.case_id for case in cases})
                work.enter(cases)
            with timed(costs, f"{run}_cases"):
                work.do(workers)
        costs[f"{run}_copying_s"], costs[f"{run}_n_done"] = workers.seconds, workers.n_done
        del cases, work
    with timed(costs, "tables"):
        write_tables(output)
    with timed(costs, "status"):
        costs["n_done"] = archive_status(output).n_done
    return costs


def make(root: Path, n_cases: int) -> tuple[Path, Path]:
    """An archive of so many tiny scans, and a finished case by the real thing."""
    import medseg
    from tests.batch.archives import make_archive

    archive = root / "in"
    template = nib.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4)).to_bytes()
    for number in range(n_cases):
        folder = archive / f"study_{number // 100:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        data = bytearray(template)
        data[352:356] = np.float32(number).tobytes()  # the first voxel: no two files have the same bytes
        (folder / f"scan_{number:05d}.nii").write_bytes(data)
    make_archive(root / "one", 2)
    medseg.run_archive(root / "one", "sarcoma_pet", root / "done", device="cpu", engine="torch", precision="float32")
    return archive, root / "done" / "p1__scan_001"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--one", type=Path, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    how = parser.parse_args()
    if how.one is not None:
        print(json.dumps(one_size(*how.one)))
        return
    results = {}
    for n_cases in (how.cases // 10, how.cases):
        with tempfile.TemporaryDirectory() as name:
            archive, finished = make(Path(name), n_cases)
            command = [sys.executable, __file__, "--one", str(archive), str(finished), str(Path(name, "out"))]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[n_cases] = json.loads(done.stdout)
        print(f"{n_cases} cases:", {name: round(value, 2) for name, value in results[n_cases].items()}, flush=True)
    if how.output is not None:
        how.output.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
