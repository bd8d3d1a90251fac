"""What cross-validation finds out, as records that go to JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from medseg.evaluation.cohort import Interval

__all__ = ["CaseScore", "CrossValidation", "SCORES_PATH"]

SCORES_PATH = Path("docs") / "cross_validation.json"
"""Where a bundle holds them."""


class CaseScore(BaseModel):
    """How one held-out patient went.

    `dice_recut` is the Dice of the same patient cut anew, with each margin around the lesions at a random share of
    what it was: a network that leans on where a scan ends does worse there. `n_found` counts reference lesions of
    which at least half of the voxels were predicted; `n_false` counts predicted lesions that touch no reference
    voxel. Reference lesions are 26-connected components; predicted ones come apart as the plan says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str
    fold: int
    dice: float | None
    dice_recut: float | None
    reference_ml: float
    predicted_ml: float
    n_reference: int
    n_found: int
    n_predicted: int
    n_false: int

    @property
    def volume_error_ml(self) -> float:
        """Predicted minus reference volume, in milliliters."""
        return self.predicted_ml - self.reference_ml


class CrossValidation(BaseModel):
    """All held-out patients, with means and 95 % bootstrap intervals over patients."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_folds: int
    plan_sha256: str
    dice: Interval
    dice_recut: Interval
    absolute_volume_error_ml: Interval
    absolute_relative_volume_error: Interval
    sensitivity: float
    n_reference: int
    n_found: int
    n_false: int
    cases: tuple[CaseScore, ...]
