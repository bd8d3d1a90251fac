"""Work done by threads ahead of need, in order and within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

__all__ = ["Ahead"]

_PATIENCE_S = 0.02

T = TypeVar("T")
R = TypeVar("R")


class Ahead(Generic[T, R]):
    """What a function makes of items, in their order, at most a few of them ahead of who asks.

    Parameters
    ----------
    items
        Taken one by one.
    do
        Called in another thread; what it raises is raised where its turn comes.
    n_ahead
        Most results that wait or are in work.
    n_threads
        How many items are in work at a time.

    Examples
    --------
    >>> with Ahead([1, 2, 3], lambda number: number * number, n_ahead=2) as squares:
    ...     [square for square in squares if square is not None]
    [1, 4, 9]
    """

    def __init__(self, items: Iterable[T], do: Callable[[T], R], n_ahead: int, n_threads: int = 1) -> None:
        self._items, self._do, self._n_ahead = iter(items), do, n_ahead
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="medseg-ahead")
        self._waiting: deque[Future[R]] = deque()

    def __enter__(self) -> Ahead[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[R | None]:
        """The results one by one; None each time that the next one is not ready."""
        self._fill()
        while self._waiting:
            if not wait([self._waiting[0]], timeout=_PATIENCE_S).done:
                yield None
                continue
            result = self._waiting.popleft().result()
            self._fill()
            yield result

    def _fill(self) -> None:
        while len(self._waiting) < self._n_ahead:
            try:
                item = next(self._items)
            except StopIteration:
                return
            self._waiting.append(self._threads.submit(self._do, item))
