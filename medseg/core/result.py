"""CaseResult and CaseFailure: what came of one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medseg.core.lesions import LesionMap
from medseg.core.provenance import Provenance
from medseg.core.recipe import Recipe
from medseg.core.scan import Scan
from medseg.core.semantic import SemanticMap
from medseg.core.table import LesionTable
from medseg.core.volume import Volume
from medseg.errors import GridMismatch

__all__ = ["CaseFailure", "CaseResult"]


@dataclass(frozen=True, eq=False)
class CaseResult:
    """Everything about one segmented case; all grids agree.

    Raises
    ------
    GridMismatch
        If a map lies on another grid than the scan, or the table has another number of rows than the lesions.
    """

    scan: Scan
    volume: Volume
    semantic: SemanticMap
    lesions: LesionMap
    table: LesionTable
    recipe: Recipe
    provenance: Provenance
    seconds: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, geometry in (
            ("volume", self.volume.geometry),
            ("semantic map", self.semantic.geometry),
            ("lesion map", self.lesions.geometry),
        ):
            if not self.scan.geometry.matches(geometry):
                raise GridMismatch(f"{self.case_id}: the {name} is on {geometry!r}, the scan on {self.scan.geometry!r}")
        if len(self.table) != self.lesions.n_lesions:
            raise GridMismatch(f"{self.case_id}: {len(self.table)} table rows for {self.lesions.n_lesions} lesions")

    @property
    def case_id(self) -> str:
        """Name of the case."""
        return self.scan.case_id

    def __repr__(self) -> str:
        return f"CaseResult({self.case_id!r}, {self.lesions.n_lesions} lesion(s))"


@dataclass(frozen=True)
class CaseFailure:
    """A case that could not be finished: at which stage, and why."""

    case_id: str
    stage: str
    error: str
