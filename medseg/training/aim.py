"""An aim: what an operating point is chosen for, in words that a command takes."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict

from medseg.errors import UsageError

__all__ = ["AIMS", "Aim", "parse_aim"]

Goal = Literal["false positives", "sensitivity", "count error", "lesion f1", "dice"]

AIMS = {
    "false positives <= N": "at most N false positives a scan (mean), at the highest sensitivity",
    "sensitivity >= S": "at least the share S of all lesions found, at the fewest false positives",
    "count error": "the least difference between predicted and reference number of lesions (mean over scans)",
    "count error <= N": "such a difference of at most N, at the best lesion F1",
    "lesion f1": "the best lesion F1",
    "dice": "the best mean Dice",
}
"""The aims that there are, and what they mean."""

_SIGNS: dict[str, tuple[str, ...]] = {
    "false positives": ("<=",),
    "sensitivity": (">=",),
    "count error": ("<=", ""),
    "lesion f1": ("",),
    "dice": ("",),
}


class Aim(BaseModel):
    """What is to be reached, and the limit where there is one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    goal: Goal
    limit: float | None = None

    def __str__(self) -> str:
        sign = ">=" if self.goal == "sensitivity" else "<="
        return self.goal if self.limit is None else f"{self.goal} {sign} {self.limit:g}"


def parse_aim(text: str) -> Aim:
    """Read an aim, such as "false positives <= 0.5".

    Raises
    ------
    UsageError
        If there is no such aim, or its limit makes no sense.

    Examples
    --------
    >>> parse_aim("False positives <= 0.5")
    Aim(goal='false positives', limit=0.5)
    >>> str(parse_aim("sensitivity>=.9"))
    'sensitivity >= 0.9'
    """
    words = re.fullmatch(r"\s*([a-z][a-z0-9 _-]*?)\s*(?:(<=|>=)\s*([0-9.eE+-]+))?\s*", text.lower())
    name = "" if words is None else re.sub(r"[\s_-]+", " ", words[1])
    sign, number = ("", "") if words is None else (words[2] or "", words[3] or "")
    if sign not in _SIGNS.get(name, ()):
        known = "; ".join(f'"{aim}": {meaning}' for aim, meaning in AIMS.items())
        raise UsageError(f"no such aim: {text!r}. Aims are {known}")
    limit = _number(number, text) if sign else None
    if limit is not None and not 0 <= limit <= (1 if name == "sensitivity" else float("inf")):
        raise UsageError(f"aim {text!r}: a sensitivity lies between 0 and 1, a number of lesions at 0 or above")
    return Aim.model_validate({"goal": name, "limit": limit})


def _number(text: str, aim: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise UsageError(f"aim {aim!r}: {text!r} is no number") from error
    if number == float("inf"):
        raise UsageError(f"aim {aim!r}: the limit is a finite number")
    return number
