"""Which models may run code of their own: pinned by a hash over all of their files.

`medseg model trust FOLDER` writes path and hash to `trusted.json` in the user's configuration folder. A pinned model
runs its code while the hash is the same; once a file has changed, it is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medseg.errors import ChangedModel, InvalidBundle
from medseg.io.json_files import write_json

__all__ = ["is_trusted", "model_sha256", "pin_model", "trust_file", "unpin_model"]

_LEFT_OUT = {".git", "__pycache__", "docs", "eval"}  # no code, no weights; Python and a bundle's own runs write there
_CHUNK = 2**20


def trust_file() -> Path:
    """Where pinned models are kept: `medseg/trusted.json` in XDG_CONFIG_HOME, by default `~/.config`."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "medseg" / "trusted.json"


def model_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 over names and content of a model's files: code, configuration and weights.

    Documentation, caches of Python and `eval/` are left out.

    Raises
    ------
    InvalidBundle
        If there is nothing.
    """
    if path.is_file():
        return _file_sha256(path)
    files = sorted(f for f in path.rglob("*") if f.is_file() and not _LEFT_OUT & set(f.relative_to(path).parts))
    if not files:
        raise InvalidBundle(f"{path}: no files there")
    total = hashlib.sha256()
    for file in files:
        total.update(f"{file.relative_to(path).as_posix()}\0{_file_sha256(file)}\n".encode())
    return total.hexdigest()


def pin_model(path: Path) -> str:
    """Trust a model as it is now; its hash.

    Raises
    ------
    InvalidBundle
        If there is nothing at the path.
    OutputNotWritable
        If the configuration folder cannot be written.
    """
    sha256 = model_sha256(path)
    entry = {"sha256": sha256, "pinned": datetime.now(UTC).isoformat(timespec="seconds")}
    _write({**_pinned(), str(path.resolve()): entry})
    return sha256


def unpin_model(path: Path) -> bool:
    """Trust a model no longer; whether it was pinned."""
    pinned = _pinned()
    if pinned.pop(str(path.resolve()), None) is None:
        return False
    _write(pinned)
    return True


def is_trusted(path: Path) -> bool:
    """Whether a model is pinned, and still is what was pinned.

    Raises
    ------
    ChangedModel
        If it is pinned, and has changed since.
    """
    entry = _pinned().get(str(path.resolve()))
    if entry is None:
        return False
    found = model_sha256(path)
    if found != entry["sha256"]:
        raise ChangedModel(
            f"{path} was pinned as trusted on {entry.get('pinned', 'an unknown day')} with SHA-256 {entry['sha256']}; "
            f"its files now have {found}. Look at what has changed; `medseg model trust {path}` pins it anew"
        )
    return True


def _pinned() -> dict[str, dict[str, Any]]:
    file = trust_file()
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {str(path): dict(entry) for path, entry in content["models"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidBundle(f"{file} is damaged ({error}); remove it and pin your models again") from error


def _write(pinned: dict[str, dict[str, Any]]) -> None:
    file = trust_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json({"schema_version": 1, "models": pinned}, file)


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
