"""Names and colors of labels for the viewers that open a NIfTI map: ITK-SNAP and 3D Slicer."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from medseg.core.colors import lesion_color
from medseg.core.lesions import LesionMap
from medseg.errors import UsageError
from medseg.io.atomic import atomic_path

__all__ = ["lesion_names", "write_label_names"]

_ITKSNAP_HEAD = """\
################################################
# ITK-SnAP Label Description File
# File format:
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
# Fields:
#    IDX:   Zero-based index
#    -R-:   Red color component (0..255)
#    -G-:   Green color component (0..255)
#    -B-:   Blue color component (0..255)
#    -A-:   Label transparency (0.00 .. 1.00)
#    VIS:   Label visibility (0 or 1)
#    IDX:   Label mesh visibility (0 or 1)
#  LABEL:   Label description
################################################
    0     0    0    0        0  0  0    "Clear Label"
"""
_SLICER_HEAD = "# Color table file, 3D Slicer\n0 Background 0 0 0 0\n"


def lesion_names(lesions: LesionMap) -> tuple[str, ...]:
    """What lesions are called in a viewer: "Lesion 1, metastasis"; a class that says no more than "lesion" is left out.

    Examples
    --------
    >>> import numpy as np
    >>> from medseg.core.geometry import Geometry
    >>> from medseg.core.lesions import Lesion
    >>> array = np.array([1, 2], dtype=np.uint16).reshape(2, 1, 1)
    >>> lesion_names(LesionMap(array, Geometry((2, 1, 1), np.eye(4)), (Lesion("lesion"), Lesion("cyst"))))
    ('Lesion 1', 'Lesion 2, cyst')
    """
    return tuple(
        f"Lesion {number}" if lesion.class_name == "lesion" else f"Lesion {number}, {lesion.class_name}"
        for number, lesion in enumerate(lesions.lesions, start=1)
    )


def write_label_names(names: Sequence[str], path: str | PathLike[str]) -> None:
    """Write the names of labels 1..n with their colors.

    Parameters
    ----------
    names
        n names.
    path
        A file that ends in .txt (label description file of ITK-SNAP) or .ctbl (color table of 3D Slicer).

    Raises
    ------
    UsageError
        If the suffix is neither.
    OutputNotWritable
        If the folder cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".txt", ".ctbl"):
        raise UsageError(f"{path}: names of labels end in .txt (ITK-SNAP) or .ctbl (3D Slicer); got {suffix or 'none'}")
    text = _itksnap(names) if suffix == ".txt" else _slicer(names)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")


def _itksnap(names: Sequence[str]) -> str:
    lines = []
    for number, name in enumerate(names, start=1):
        red, green, blue = lesion_color(number)
        plain = " ".join(name.replace('"', "'").split())
        lines.append(f'{number:>5} {red:>5}{green:>5}{blue:>5}        1  1  1    "{plain}"\n')
    return _ITKSNAP_HEAD + "".join(lines)


def _slicer(names: Sequence[str]) -> str:
    """Fields are divided by spaces, so names carry underscores; Slicer shows them as spaces."""
    lines = []
    for number, name in enumerate(names, start=1):
        red, green, blue = lesion_color(number)
        lines.append(f"{number} {'_'.join(name.split())} {red} {green} {blue} 255\n")
    return _SLICER_HEAD + "".join(lines)
