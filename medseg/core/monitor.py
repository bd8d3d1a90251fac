"""Monitor: where a case stands, how long each stage took, and who wants to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Monitor", "Progress"]

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total): at the start of a stage with done = 0, and after each unit of work."""


class Monitor:
    """Times the stages of one case and passes progress on.

    Parameters
    ----------
    progress
        Called with the stage's name and the units of work done and in all; None for nobody.

    Examples
    --------
    >>> monitor = Monitor()
    >>> with monitor.stage("network", total=2):
    ...     monitor.advance()
    >>> list(monitor.seconds)
    ['network']
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.current: str = ""
        self._progress = progress
        self._done = 0
        self._total = 1

    @contextmanager
    def stage(self, name: str, total: int = 1) -> Iterator[None]:
        """Enter a stage of `total` units of work; its seconds are kept when it ends, also by an error."""
        self.current, self._done, self._total = name, 0, max(total, 1)
        self._tell()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self._done = self._total
        self._tell()

    def expect(self, total: int) -> None:
        """Say how many units of work the present stage has, once that is known; its count starts again."""
        self._done, self._total = 0, max(total, 1)
        self._tell()

    def advance(self, n: int = 1) -> None:
        """Say that n more units of work of the present stage are done."""
        self._done = min(self._done + n, self._total)
        self._tell()

    def attribute(self, stage: str, seconds: float) -> None:
        """Say that some of the present stage's seconds belong to another: two stages that take turns."""
        self.seconds[self.current] = self.seconds.get(self.current, 0.0) - seconds
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def wait(self, is_waiting: bool) -> None:
        """Say that the present stage waits for another case (told as the stage "wait"), or that it goes on."""
        if self._progress is not None:
            self._progress("wait" if is_waiting else self.current, self._done, self._total)

    def remark(self, text: str) -> None:
        """Pass a sentence on to who wants to know, if that has a method `remark`."""
        hear = getattr(self._progress, "remark", None)
        if hear is not None:
            hear(text)

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.current, self._done, self._total)
