"""Processes of medseg's own beside this one: started fresh, spoken to, and gone when this one is, however it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import medseg
from medseg.io.freed_memory import keep_freed_memory

__all__ = ["ChildProcess", "how_it_ended", "meet_parent"]


class ChildProcess:
    """A process that runs a module and talks with this one by pickled messages.

    It is a fresh one: without locks, threads or a CUDA context of this process, and without its main script. The module
    calls `meet_parent` first.

    Parameters
    ----------
    module
        As `python -m` takes it.
    words
        Further words of its command line.
    log
        File that its output is appended to.
    n_threads
        OMP_NUM_THREADS, unless the environment says otherwise.
    files
        Descriptors that it inherits.
    environment
        Further variables, unless the environment has them.
    """

    def __init__(
        self,
        module: str,
        words: Sequence[object],
        log: Path,
        *,
        n_threads: int,
        files: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()  # it ends as soon as nobody holds the other end any more
        root = str(Path(medseg.__file__).resolve().parents[1])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        inherited = (theirs.fileno(), lifeline, *files)
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", module, *map(str, (*inherited[:2], *words))],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"OMP_NUM_THREADS": str(n_threads), **(environment or {}), **os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        theirs.close()
        os.close(lifeline)
        self.pid = self._process.pid
        self.connection = Connection(ours.detach())

    def tell(self, message: object) -> None:
        """Send it something; if it is dead already, that shows when it is listened to."""
        with suppress(OSError):
            self.connection.send(message)

    def hear(self) -> object:
        """What it says next; None if it is gone."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def ask_to_end(self) -> None:
        """Send SIGTERM, and do not wait."""
        self._process.terminate()

    def end(self, patience_s: float) -> int:
        """Wait so many seconds for it to end, then kill it; its exit status."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        self._process.kill()
        status = self._process.wait()
        self.connection.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        return status


def meet_parent() -> tuple[Connection, list[str]]:
    """Within the child: the connection to the process that started it, and the words that it was given.

    Ctrl-C is for the parent, which then ends its children; when the parent is gone, this process ends at once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    channel, lifeline = int(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    return Connection(channel), sys.argv[3:]


def _end_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)


def how_it_ended(status: int) -> str:
    """An exit status in words: "exit code 1", "SIGKILL"."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
