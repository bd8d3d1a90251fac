"""Turns at the network: one thread at a time, the one that came first before all others."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

__all__ = ["Turn"]


class Turn:
    """A lock that several cases of one process share; while one paints its map, reads or measures, another has it.

    A thread may take it again while it holds it. Of those that wait, the thread whose case began first is next, so
    that cases end in the order in which they began and few are held in memory.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._tickets = count()
        self._mine = threading.local()
        self._waiting: list[int] = []
        self._holder: int | None = None
        self._depth = 0

    @contextmanager
    def case(self, on_wait: Callable[[bool], None] | None = None) -> Iterator[None]:
        """A thread begins a case here: its place among those that wait. Cases within it (a cascade) keep its place.

        Parameters
        ----------
        on_wait
            Called with True where the case begins to wait for others, with False where it goes on.
        """
        if getattr(self._mine, "ticket", None) is not None:
            yield
            return
        self._mine.ticket = next(self._tickets)
        self._mine.waited_s = 0.0
        self._mine.on_wait = on_wait or (lambda _: None)
        try:
            yield
        finally:
            self._mine.ticket = None

    @property
    def is_mine(self) -> bool:
        """Whether this thread's case has it."""
        return self._holder is not None and self._holder == getattr(self._mine, "ticket", None)

    @property
    def waited_s(self) -> float:
        """Seconds that this thread's case has waited for its turns."""
        return float(getattr(self._mine, "waited_s", 0.0))

    def acquire(self) -> None:
        """Wait for the turn of this thread's case."""
        ticket = self._mine.ticket
        if self._taken(ticket):
            return
        start = time.perf_counter()
        self._mine.on_wait(True)
        with self._condition:
            heapq.heappush(self._waiting, ticket)
            self._condition.wait_for(lambda: self._holder is None and self._waiting[0] == ticket)
            heapq.heappop(self._waiting)
            self._holder, self._depth = ticket, 1
        self._mine.on_wait(False)
        self._mine.waited_s += time.perf_counter() - start

    def _taken(self, ticket: int) -> bool:
        """Take the turn if it is this case's already, or free."""
        with self._condition:
            if self._holder == ticket:
                self._depth += 1
            elif self._holder is None and not self._waiting:
                self._holder, self._depth = ticket, 1
            else:
                return False
        return True

    def release(self) -> None:
        """Give the turn back."""
        with self._condition:
            self._depth -= 1
            if self._depth == 0:
                self._holder = None
                self._condition.notify_all()

    def __enter__(self) -> Turn:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
