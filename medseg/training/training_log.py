"""The log of a training: JSON lines, the same as CSV, and TensorBoard's events where that package is installed."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from medseg.io.atomic import atomic_path

__all__ = ["CSV_NAME", "LOG_NAME", "TrainingLog", "read_log"]

LOG_NAME = "train.log"
CSV_NAME = "train.csv"
_COLUMNS = (
    "step",
    "loss",
    "learning_rate",
    "seconds",
    "dice",
    "lesion_f1",
    "validation_seconds",
    "is_best",
)
_OF_TIME = ("seconds", "validation_seconds")


class TrainingLog:
    """Writes one record a step into `train.log` and `train.csv` of a folder; used as a context manager.

    Parameters
    ----------
    folder
        Is there already.
    first_step
        Steps that are done; records of later ones, which a killed run left behind, are dropped. 0 starts anew.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self._folder = folder
        kept = [record for record in read_log(folder) if record["step"] <= first_step] if first_step else []
        _rewrite(folder, kept)
        self._lines = (folder / LOG_NAME).open("a", encoding="utf-8")
        self._file = (folder / CSV_NAME).open("a", encoding="utf-8", newline="")
        self._table = _table(self._file)
        self._board = _board(folder, first_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, step: int, values: Mapping[str, float | bool]) -> None:
        """Add what is known after a step, and see that it reaches the disk."""
        record = {"step": step, **values}
        self._lines.write(_line(record))
        self._table.writerow(record)
        self._lines.flush()
        self._file.flush()
        for name, value in values.items() if self._board is not None else ():
            if name not in (*_OF_TIME, "is_best"):
                self._board.add_scalar(name, value, step)


def _rewrite(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Both files with these records; a kill meanwhile leaves the old ones."""
    with atomic_path(folder / CSV_NAME) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        table = _table(file)
        table.writeheader()
        table.writerows(records)
    with atomic_path(folder / LOG_NAME) as draft:
        draft.write_text("".join(map(_line, records)), encoding="utf-8")


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"


def _table(file: TextIO) -> csv.DictWriter[str]:
    return csv.DictWriter(file, _COLUMNS, lineterminator="\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The records of a folder's `train.log`, none without one; a line that a kill cut off is left out."""
    path = folder / LOG_NAME
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return [record for record in records if isinstance(record, dict) and isinstance(record.get("step"), int)]


def _board(folder: Path, first_step: int) -> Any:
    """TensorBoard's writer; None where the package is not installed: medseg does not need it."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
