"""A Dask scheduler and workers as processes of this machine, on its loopback only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as any_socket:
        any_socket.bind((LOOPBACK, 0))
        return int(any_socket.getsockname()[1])


class Processes:
    """Started ones, ended by their ids."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self._folder / "dask.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._all.append(process)
        return process

    def scheduler(self, port: int) -> subprocess.Popen[bytes]:
        return self.start("dask_scheduler", "--host", LOOPBACK, "--port", str(port), "--no-dashboard")

    def worker(self, port: int, *words: str) -> subprocess.Popen[bytes]:
        place = ["--no-dashboard", "--no-nanny", "--host", LOOPBACK, "--local-directory", str(self._folder / "scratch")]
        return self.start("dask_worker", f"tcp://{LOOPBACK}:{port}", *place, *words)

    def end(self) -> None:
        for process in self._all:
            process.kill()
        for process in self._all:
            process.wait()


@contextmanager
def dask_processes(folder: Path) -> Iterator[Processes]:
    processes = Processes(folder)
    try:
        yield processes
    finally:
        processes.end()
