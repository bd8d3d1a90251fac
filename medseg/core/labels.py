"""LabelScheme: which number in a semantic map means which class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

__all__ = ["BINARY_LESION", "LabelScheme"]


class LabelScheme(BaseModel):
    """Class numbers and their names; 0 is always background and is not listed.

    Parameters
    ----------
    classes
        Number (1..65535) to class name.
    regions
        Region name to the class numbers that it unites, for nested targets (whole tumor = core + edema).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]] = {}

    @field_validator("classes")
    @classmethod
    def _positive_numbers(cls, classes: Mapping[int, str]) -> Mapping[int, str]:
        bad = [number for number in classes if not 1 <= number <= 65535]
        if bad or not classes:
            raise ValueError(f"class numbers lie in 1..65535 (0 is background), at least one; got {sorted(classes)}")
        return dict(sorted(classes.items()))

    @model_validator(mode="after")
    def _regions_unite_classes(self) -> Self:
        unknown = {name: sorted(set(united) - set(self.classes)) for name, united in self.regions.items()}
        bad = {name: numbers for name, numbers in unknown.items() if numbers}
        if bad:
            raise ValueError(f"regions unite class numbers that the scheme does not name: {bad}")
        return self

    @property
    def highest(self) -> int:
        """The highest class number."""
        return max(self.classes)


BINARY_LESION = LabelScheme(classes={1: "lesion"})
