"""Results on their way to where they go besides the output folder, brought by a thread while other cases run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from medseg.batch.ledger import Entry
from medseg.dicom.pacs import store_missing
from medseg.dicom.pacs_access import PacsAccess, open_pacs
from medseg.io.dicom_results import DICOM_FILES

__all__ = ["Delivered", "Destination", "into_pacs"]

_MOST_WAITING = 16


@dataclass(frozen=True)
class Delivered:
    """What came of bringing a case: how many of its files were new there, or why it failed."""

    case_id: str
    n_new: int = 0
    error: Exception | None = None


class Destination:
    """A place to which the files of cases are brought, one case after another.

    Parameters
    ----------
    address
        By which the ledger knows it; holds no secret.
    stage
        The stage of a case that could not be brought there.
    names
        Which files of a case go there.
    bring
        Brings the files of a case; returns how many were new there. Called in another thread.
    close
        Called at the end.
    give_up
        Called when the run is broken off: what is under way shall end soon.
    """

    def __init__(
        self,
        address: str,
        stage: str,
        names: Callable[[Entry], Iterable[str]],
        bring: Callable[[Sequence[Path]], int],
        close: Callable[[], None] = lambda: None,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.address, self.stage, self.names = address, stage, names
        self._bring, self._close, self.give_up = bring, close, give_up
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"medseg-{stage}")
        self._waiting: list[Future[Delivered]] = []

    def __enter__(self) -> Destination:
        return self

    def __exit__(self, *_: object) -> None:
        """End; what has not begun is left for the next run."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._close()

    def send(self, case_id: str, files: Sequence[Path]) -> None:
        """Bring the files of a case there when its turn comes."""
        self._waiting.append(self._thread.submit(self._deliver, case_id, list(files)))

    def ended(self, *, wait: bool = False) -> Iterator[Delivered]:
        """The cases that have come to an end since; with `wait`, all of them. Too many that wait are waited for."""
        while self._waiting and (wait or len(self._waiting) > _MOST_WAITING or self._waiting[0].done()):
            yield self._waiting.pop(0).result()

    def _deliver(self, case_id: str, files: list[Path]) -> Delivered:
        try:
            return Delivered(case_id, self._bring(files))
        except Exception as error:  # whatever it is, it stays with this case
            return Delivered(case_id, error=error)


def into_pacs(access: PacsAccess) -> Destination:
    """An archive that takes the DICOM objects of cases; objects that it holds are left as they are.

    Raises
    ------
    UsageError
        If the address or the credentials make no sense.
    """
    access = access.with_own_patience()
    pacs = open_pacs(access)

    def names(entry: Entry) -> list[str]:
        return [name for name in DICOM_FILES if name in entry.files]

    def bring(files: Sequence[Path]) -> int:
        return store_missing(pacs, files)

    return Destination(access.address, "store", names, bring, pacs.close, access.patience.lose)
