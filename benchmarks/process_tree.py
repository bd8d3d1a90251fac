"""What a command costs with all the processes it starts: processor seconds, elapsed seconds, peak memory."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

__all__ = ["cost_of"]

_EVERY_S = 0.2


def cost_of(command: list[str], environment: dict[str, str], log: Path) -> dict[str, float]:
    """Run a command to its end.

    Parameters
    ----------
    command, environment
        What to run.
    log
        Where its output goes.

    Returns
    -------
    `cpu_s` (user and system time of the command and of all descendants that were waited for), `wall_s`, and `peak_mib`:
    the highest sum of resident memory over the process tree. Pages that several processes share count once (each has
    its share of them), so that a pool of forked workers is not counted as so many copies.

    Raises
    ------
    SystemExit
        If the command fails, with the end of its log.
    """
    start = time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        peak = _Peak(process.pid)
        peak.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peak.stop()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.perf_counter() - start,
        "peak_mib": peak.mib,
    }


class _Peak(threading.Thread):
    """Samples the memory of a process and its descendants; of the descendants, shorter moments may be missed.

    What `wait4` tells of a process is of no use: it counts the memory of the process that started it, too.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.mib = 0.0
        self._pid = pid
        self._done = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        while not self._done.wait(_EVERY_S):
            of_tree = sum(_share_kib(pid) for pid in _tree(self._pid))
            self.mib = max(self.mib, of_tree / 1024, _highest_kib(self._pid) / 1024)

    def stop(self) -> None:
        """End the sampling."""
        self._done.set()
        self.join()


def _tree(root: int) -> list[int]:
    """The process and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _share_kib(pid: int) -> int:
    """Proportional set size: own pages and the share of those that others map too."""
    return _kib(f"/proc/{pid}/smaps_rollup", "Pss:")


def _highest_kib(pid: int) -> int:
    """Most resident memory that a process has had so far."""
    return _kib(f"/proc/{pid}/status", "VmHWM:")


def _kib(path: str, name: str) -> int:
    """A line of a file of the system's; 0 once the process has gone."""
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    except OSError:
        pass
    return 0
