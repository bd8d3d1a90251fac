"""The cases of a run that are still to be given to a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from medseg.batch.messages import Task

__all__ = ["Queue"]


class Queue:
    """The tasks that are to come: those that are to be done again, and the next one of the others."""

    def __init__(self, tasks: Iterable[Task | None]) -> None:
        self._tasks = iter(tasks)
        self._again: list[Task] = []
        self._next: Task | None = None
        self.is_late = False
        self._is_over = False
        self._look()

    @property
    def is_open(self) -> bool:
        """Whether more is to come."""
        return bool(self._again) or not self._is_over or self._next is not None

    @property
    def n_known(self) -> int:
        """At least so many are to come."""
        return len(self._again) + (self._next is not None or not self._is_over)

    def put_back(self, task: Task) -> None:
        """A task that is to be done again."""
        self._again.append(task)

    def take(self, may_take: Callable[..., bool]) -> Task | None:
        """The next task that may be taken; those that are to be done again come first."""
        for number, task in enumerate(self._again):
            if may_take(alone=task.is_alone):
                return self._again.pop(number)
        if any(task.is_alone for task in self._again):
            return None  # nothing new until a worker is free for it
        if self._next is None and not self._is_over:
            self._look()
        if self._next is None or not may_take(alone=self._next.is_alone):
            return None
        task, self._next = self._next, None
        self._look()
        return task

    def _look(self) -> None:
        try:
            self._next = next(self._tasks)
        except StopIteration:
            self._is_over = True
        self.is_late = self._next is None and not self._is_over
