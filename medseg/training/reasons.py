"""Why a plan is as it is: kept beside it in the work folder and in the bundle, and told in the model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from medseg.core.plan import Plan

if TYPE_CHECKING:
    from medseg.training.planner import Planned

__all__ = ["PlanReasons", "REASONS_PATH", "Reason", "reasons_of"]

REASONS_PATH = Path("docs") / "plan_reasons.json"
"""Where a bundle holds them; in a work folder they lie beside its plan, under the same name."""


@dataclass(frozen=True)
class Reason:
    """One choice of a plan: the field, its value in words, and why."""

    field: str
    value: str
    why: str

    def __str__(self) -> str:
        return f"{self.field} = {self.value}: {self.why}"


class PlanReasons(BaseModel):
    """The reasons for the choices of a plan, none for one that was given, and what its user was warned of.

    `plan_sha256` is of the plan that the network was trained by, before an operating point was chosen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan_sha256: str
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()


def reasons_of(
    planned: Planned, plan: Plan, changes: Mapping[str, float | None], before: Path | None = None
) -> PlanReasons:
    """The reasons of a plan, those among them that single fields were asked for.

    Parameters
    ----------
    planned
        The plan as it was made or given.
    plan
        The plan with the changes.
    changes
        Fields of its training that were asked for; None for those that were not.
    before
        Work folder of a run that is gone on from: its reasons hold where the plan is the same and comes without any.
    """
    if before is not None and not planned.reasons:
        path = before / REASONS_PATH.name
        saved = PlanReasons.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None
        if saved is not None and saved.plan_sha256 == plan.sha256:
            return saved
    asked = [
        Reason(f"training.{name}", f"{value:g}", "asked for") for name, value in changes.items() if value is not None
    ]
    fields = {reason.field for reason in asked}
    reasons = (*(reason for reason in planned.reasons if reason.field not in fields), *asked)
    return PlanReasons(plan_sha256=plan.sha256, reasons=reasons, warnings=planned.warnings)
