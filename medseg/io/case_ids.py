"""Names of cases that carry no identity.

A DICOM case is named by a salted hash of its UIDs. The salt lies in the output folder, hidden, so that a resumed run
names the same series alike, while nobody can tell from the name alone which series it was.
"""

from __future__ import annotations

import hashlib
import secrets
from os import PathLike
from pathlib import Path

from medseg.io.atomic import atomic_path

__all__ = ["SALT_FILE", "dicom_case_id", "new_salt", "read_salt", "write_salt"]

SALT_FILE = ".medseg-salt"


def dicom_case_id(salt: str, study_instance_uid: str, series_instance_uid: str) -> str:
    """The first 16 hexadecimal digits of SHA-256(salt + study UID + series UID)."""
    return hashlib.sha256(f"{salt}{study_instance_uid}{series_instance_uid}".encode()).hexdigest()[:16]


def new_salt() -> str:
    """A random salt: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def read_salt(folder: str | PathLike[str]) -> str | None:
    """The salt kept in an output folder, or None if there is none."""
    file = Path(folder, SALT_FILE)
    return file.read_text(encoding="ascii").strip() or None if file.is_file() else None


def write_salt(folder: str | PathLike[str], salt: str) -> None:
    """Keep a salt in an output folder, readable by its owner only.

    Raises
    ------
    OutputNotWritable
        If the folder cannot be written.
    """
    with atomic_path(Path(folder, SALT_FILE)) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(f"{salt}\n", encoding="ascii")
