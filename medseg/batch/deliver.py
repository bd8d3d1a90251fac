"""Results on their way into a PACS, stored by a thread while other cases run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from medseg.batch.ledger import Entry
from medseg.dicom.pacs import Pacs, store_missing
from medseg.dicom.pacs_access import PacsAccess, open_pacs
from medseg.io.dicom_results import DICOM_FILES

__all__ = ["Delivered", "Delivery", "Destination"]

_MOST_WAITING = 16


@dataclass(frozen=True)
class Delivered:
    """What came of storing a case: how many objects were new to the archive, or why it failed."""

    case_id: str
    n_new: int = 0
    error: Exception | None = None


class Destination(Protocol):
    """Where results go besides the output folder. `stage` is that of a case that could not be brought there."""

    address: str
    stage: str

    def names(self, entry: Entry) -> Iterable[str]:
        """Which files of a case go there."""

    def send(self, case_id: str, files: Sequence[Path]) -> None:
        """Bring the files of a case there when its turn comes."""

    def ended(self, *, wait: bool = False) -> Iterator[Delivered]:
        """The cases that have come to an end since; with `wait`, all of them."""

    def __enter__(self) -> Destination:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End; what has not begun is left for the next run."""


class Delivery:
    """Stores the DICOM objects of cases in an archive, one case at a time; objects that it holds are left as they are.

    Parameters
    ----------
    access
        The archive.

    Raises
    ------
    UsageError
        If the address or the credentials make no sense.
    """

    stage = "store"

    def __init__(self, access: PacsAccess) -> None:
        self.address = access.address
        self._pacs: Pacs = open_pacs(access)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="medseg-store")
        self._waiting: list[Future[Delivered]] = []

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._pacs.close()

    def names(self, entry: Entry) -> Iterable[str]:
        """The DICOM objects of a case."""
        return [name for name in DICOM_FILES if name in entry.files]

    def send(self, case_id: str, files: Sequence[Path]) -> None:
        """Store the files of a case when its turn comes."""
        self._waiting.append(self._thread.submit(self._store, case_id, list(files)))

    def ended(self, *, wait: bool = False) -> Iterator[Delivered]:
        """The cases that have come to an end since; with `wait`, all of them. Too many that wait are waited for."""
        while self._waiting and (wait or len(self._waiting) > _MOST_WAITING or self._waiting[0].done()):
            yield self._waiting.pop(0).result()

    def _store(self, case_id: str, files: list[Path]) -> Delivered:
        try:
            return Delivered(case_id, store_missing(self._pacs, files))
        except Exception as error:  # whatever it is, it stays with this case
            return Delivered(case_id, error=error)
