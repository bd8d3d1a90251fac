"""The work folder of one network: what lies there is gone on from only if it was made of the same cases."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from medseg.errors import TrainingError
from medseg.io.json_files import read_json, write_json
from medseg.io.manifest import DataManifest

__all__ = ["case_hashes", "claim", "start_anew"]

_GONE_ON_FROM = ("checkpoint.pt", "member_*/checkpoint.pt", "scores.json")
_CASES_FILE = "cases.json"
_MOST_NAMED = 5


def case_hashes(manifest: DataManifest) -> dict[str, str]:
    """Case to SHA-256 of all that training takes from it: its files, fold, split, and what is known of its lesions."""
    hashes = {}
    for case in manifest.cases:
        if case.split != "test":
            known = [[file.sha256 for file in case.files], case.split, case.fold, case.lesions]
            hashes[case.case_id] = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    return hashes


def start_anew(folder: Path) -> None:
    """Take away what an earlier run left, so that a run that goes on from this one does not take it for this one's."""
    for pattern in _GONE_ON_FROM:
        for path in folder.glob(pattern):
            path.unlink()


def claim(folder: Path, cases: Mapping[str, str], *, resume: bool) -> None:
    """Note which cases a network's folder is for.

    Parameters
    ----------
    folder
        Of one network: a fold, or the final one.
    cases
        From `case_hashes`.
    resume
        What lies there is to be gone on from.

    Raises
    ------
    TrainingError
        If it was made of other cases and `resume` is True.
    """
    path = folder / _CASES_FILE
    if resume and path.is_file():
        before: dict[str, str] = read_json(path)
        others = sorted(name for name in before.keys() | cases.keys() if before.get(name) != cases.get(name))
        if others:
            more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
            raise TrainingError(
                f"{folder}: begun with other cases than the manifest has now ({', '.join(others[:_MOST_NAMED])}{more} "
                "added, taken away, in another fold or changed); give the same manifest, or start anew without --resume"
            )
    write_json(dict(cases), path)
