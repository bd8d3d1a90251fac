"""Which columns of the lesion table are wanted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from medseg.core.column import Column
from medseg.errors import UsageError

__all__ = ["ALL", "Choice", "choose_columns"]

_ALWAYS = ("case_id", "lesion_id")
_MADE_FROM: Mapping[str, tuple[str, ...]] = {
    "is_one_slice": ("n_slices",),
    "is_thinner_than_slice": ("ellipsoid_least_axis_mm",),
    "is_below_recist": ("longest_diameter_mm",),
    "volume_density_ellipsoid": ("mesh_volume_ml",),
    "area_density_ellipsoid": ("mesh_area_mm2",),
    "integrated_intensity": ("mean", "mesh_volume_ml"),
    "margin_3mm_contrast": ("mean",),
    "ct_window": ("median",),
}


class Choice:
    """Names of columns that are wanted, and of those that they are made from; all columns without names."""

    def __init__(self, names: Iterable[str] | None = None) -> None:
        self._names: set[str] | None = None
        if names is not None:
            plain = set(names)
            self._names = plain.union(*(_MADE_FROM.get(name, ()) for name in plain))

    def holds(self, *names: str) -> bool:
        """Whether one of these is wanted."""
        return self._names is None or not self._names.isdisjoint(names)


ALL = Choice()
"""Every column."""


def choose_columns(chosen: Collection[str] | None, known: Sequence[Column]) -> tuple[Column, ...]:
    """The known columns that were chosen by name or pattern, in their usual order, after case_id and lesion_id.

    Parameters
    ----------
    chosen
        Names, or patterns with * ? [ ] as in file names; None for all columns.
    known
        All columns that the table may have.

    Raises
    ------
    UsageError
        If a name or pattern fits no column, or is no text.

    Examples
    --------
    >>> from medseg.core.table import COLUMNS
    >>> [column.name for column in choose_columns(["mean", "centroid_?"], COLUMNS)]
    ['case_id', 'lesion_id', 'centroid_i', 'centroid_j', 'centroid_k', 'mean']
    """
    if chosen is None:
        return tuple(known)
    if isinstance(chosen, str):
        raise UsageError(f"columns are a list of names or patterns; got the text {chosen!r}: give [{chosen!r}]")
    names = [column.name for column in known]
    wanted = set(_ALWAYS)
    for pattern in chosen:
        if not isinstance(pattern, str):
            raise UsageError(f"columns are names or patterns; got {pattern!r}")
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise UsageError(_unknown(pattern, names))
        wanted.update(fitting)
    return tuple(column for column in known if column.name in wanted)


def _unknown(pattern: str, names: Sequence[str]) -> str:
    near = get_close_matches(pattern, names, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"there is no column {pattern!r}; {hint}All columns: docs/reference/columns.md"
