"""JSON files: indented, keys in the order given, ending with a line break, written whole or not at all."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from medseg.errors import UsageError
from medseg.io.atomic import atomic_path

__all__ = ["read_json", "write_json"]


def write_json(value: Any, path: str | PathLike[str]) -> None:
    """Write a JSON file.

    Parameters
    ----------
    value
        Anything that JSON can say; NaN and infinity it cannot (ValueError): undefined values are None.
    path
        The file; replaced if it is there.

    Raises
    ------
    OutputNotWritable
        If the folder cannot be written.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def read_json(path: str | PathLike[str]) -> Any:
    """Read a JSON file.

    Raises
    ------
    UsageError
        If there is no such file, or it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
