"""Try again what failed for a passing reason, with longer and longer waits in between."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from medseg.errors import PacsUnreachable

__all__ = ["Delay", "OnDelay", "Patience"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Delay:
    """A wait before the next attempt: which it will be, of how many, how long the wait is, and why."""

    attempt: int
    attempts: int
    wait_s: float
    reason: str


OnDelay = Callable[[Delay], None]
"""Called before a wait, in the thread that waits."""


@dataclass(frozen=True)
class Patience:
    """How often, and how long.

    Parameters
    ----------
    attempts
        Most attempts, the first included.
    first_wait_s
        Wait after the first failure; each later one is twice as long, up to `longest_wait_s`, and up to half of it is
        left out at random, so that many clients do not come back at the same moment.
    longest_wait_s
        Longest wait.
    on_delay
        Called before each wait, in the thread that waits.
    """

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    on_delay: OnDelay | None = None
    _lost: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    def lose(self) -> None:
        """Wait no more, in any thread: what fails from now on fails at once."""
        self._lost.set()

    def run(self, action: Callable[[], T]) -> T:
        """What `action` returns; it is called again while it raises `PacsUnreachable`.

        Raises
        ------
        PacsUnreachable
            The last one, when the attempts are used up. Any other error at once.
        """
        for attempt in range(1, self.attempts):
            try:
                return action()
            except PacsUnreachable as error:
                wait_s = min(self.first_wait_s * 2 ** (attempt - 1), self.longest_wait_s)
                wait_s *= 1.0 - random.random() / 2  # noqa: S311 (no secret)
                logger.info("attempt %d of %d failed (%s); again in %.1f s", attempt, self.attempts, error, wait_s)
                if self.on_delay is not None:
                    self.on_delay(Delay(attempt + 1, self.attempts, wait_s, str(error)))
                if self._lost.wait(wait_s):
                    raise
        return action()
