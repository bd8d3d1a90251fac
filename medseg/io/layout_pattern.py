"""Folders without a description of their own: where the files lie is told by patterns such as "{case}/pet.nii.gz"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from medseg.errors import InvalidManifest, UsageError
from medseg.io.layouts import FoundCase, FoundSet, channel_called
from medseg.io.volume_files import is_volume_name

__all__ = ["read_pattern_folder"]


def read_pattern_folder(folder: Path, images: Sequence[str], label: str, instances: str | None = None) -> FoundSet:
    """Every case for which the label map is there.

    Parameters
    ----------
    folder
        Where the patterns start from.
    images
        One pattern a channel; `{case}` stands for the case's name, `{patient}` for the patient's.
    label, instances
        The pattern of the map of classes or lesions, and of lesion numbers beside it.

    Raises
    ------
    UsageError
        If a pattern has no `{case}`.
    InvalidManifest
        If nothing matches, or a case lacks a file.
    """
    for pattern in (*images, label, *([] if instances is None else [instances])):
        if "{case}" not in pattern:
            raise UsageError(f"a pattern names the case as {{case}}, as in {{case}}/label.nii.gz; got {pattern!r}")
    expression = _expression(label)
    cases = []
    for path in sorted(file for file in folder.rglob("*") if file.is_file() and is_volume_name(file)):
        match = expression.fullmatch(path.relative_to(folder).as_posix())
        if match is None:
            continue
        parts = match.groupdict()
        files = tuple(folder / _filled(pattern, parts) for pattern in images)
        numbered = None if instances is None else folder / _filled(instances, parts)
        missing = [str(file) for file in (*files, *([] if numbered is None else [numbered])) if not file.is_file()]
        if missing:
            raise InvalidManifest(f"{parts['case']}: {', '.join(missing)} not found, but {path} is there")
        cases.append(FoundCase(parts["case"], files, path, patient=parts.get("patient"), instances=numbered))
    if not cases:
        raise InvalidManifest(f"{folder}: no file matches the label pattern {label!r}")
    return FoundSet(tuple(cases), tuple(channel_called(_channel_name(pattern)) for pattern in images))


def _expression(pattern: str) -> re.Pattern[str]:
    """The pattern as an expression; a name repeats itself, and holds no slash."""
    seen: set[str] = set()

    def group(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>[^/]+)"

    return re.compile(re.sub(r"\\\{(case|patient)\\\}", group, re.escape(pattern)))


def _filled(pattern: str, parts: dict[str, str]) -> str:
    for name, value in parts.items():
        pattern = pattern.replace(f"{{{name}}}", value)
    if "{patient}" in pattern:
        raise UsageError(f"{{patient}} is not in the label pattern, so {pattern!r} cannot be filled")
    return pattern


def _channel_name(pattern: str) -> str:
    """What is left of a file's name without case, suffix and the word "image": {case}/PET_image.nii.gz is PET."""
    name = re.sub(r"\{(case|patient)\}", "", pattern.rsplit("/", 1)[-1]).split(".", 1)[0]
    return re.sub(r"(?i)(^|[_-]+)(image|img|volume)([_-]+|$)", "_", name).strip("_-") or "image"
