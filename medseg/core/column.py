"""Column: one column of the lesion table, described by data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Column", "Value"]

Value = str | int | float | bool | None
_Kind = Literal["text", "integer", "number", "flag"]


@dataclass(frozen=True)
class Column:
    """One column: its name, what kind of value it holds, its unit, and what it means.

    Parameters
    ----------
    name
        Lower case, with the unit at its end.
    kind
        Kind of its values.
    unit
        As written in the table's pages; "scan" is the unit of the scan's voxels.
    definition
        One sentence.
    code
        Terms of the field's vocabularies that mean this: "IBSI YEKZ", "SCT 118565006", "DCM 126031".
    null
        When the value is undefined.
    source
        Where the definition comes from; empty where it is our own.
    is_key
        True for the few columns that pages made for people show.
    """

    name: str
    kind: _Kind
    unit: str
    definition: str
    code: str = ""
    null: str = "never"
    source: str = ""
    is_key: bool = False

    def of_channel(self, channel: str, unit: str) -> Column:
        """The same column for a further channel: its name in front, its unit in place of "scan"."""
        return replace(
            self, name=f"{channel}_{self.name}", definition=f"Channel {channel}: {self.definition}", is_key=False
        ).in_unit(unit)

    def in_unit(self, unit: str) -> Column:
        """The same column with the unit of the scan's voxels spelled out."""
        return replace(self, unit=self.unit.replace("scan", unit))
