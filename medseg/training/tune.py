"""Choose an operating point on held-out cases: while a bundle is made, or of one that is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.core.monitor import Monitor, Progress
from medseg.core.plan import Plan
from medseg.errors import OutputExists, TrainingError, UsageError
from medseg.io.atomic import atomic_folder
from medseg.io.json_files import write_json
from medseg.models.bundle import MODEL_CARD_PATH, PLAN_PATH, Bundle, read_bundle
from medseg.models.export import workflow_files
from medseg.training.aim import Aim, parse_aim
from medseg.training.cross_validation import read_fold
from medseg.training.held_out import read_held_out
from medseg.training.model_card import with_section
from medseg.training.operating_point import OperatingPoint, choose_point
from medseg.training.operating_text import TITLE, as_markdown, warnings_of
from medseg.training.scores import SCORES_PATH, CrossValidation
from medseg.training.settings import Settings, space_of
from medseg.training.sweep import Counts, count_case
from medseg.training.validation_page import write_validation_page

__all__ = ["POINT_PATH", "find_point", "tune"]

POINT_PATH = Path("docs") / "operating_point.json"
"""Where a bundle says how its settings were chosen."""


def tune(
    bundle: str | Path,
    aim: str | Aim,
    *,
    work_dir: str | Path | None = None,
    keep: Sequence[str] = (),
    dry_run: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> OperatingPoint:
    """Choose the settings of a bundle anew, so that they meet an aim; no network runs.

    The bundle's plan, its configurations for `monai.bundle run` and its model card are written anew; its weights stay.

    Parameters
    ----------
    bundle
        Folder of a bundle that `medseg.train` wrote with `cross_validate`.
    aim
        What is to be reached, see `medseg.training.aim.AIMS`.
    work_dir
        Where its folds are; by default the bundle's path with `.training` behind it.
    keep
        Settings that stay as the plan has them: "foreground_threshold", "least_peak", "minimum_volume_ml" or
        "separation".
    dry_run
        Only choose; nothing is written.
    overwrite
        Replace an operating point that was chosen before.
    progress
        Called with stage, steps done and steps in all.

    Returns
    -------
    The point; `is_met` says whether the aim is reached on the held-out cases, and if not, the nearest was chosen.

    Raises
    ------
    UsageError
        If there is no such aim, setting or folder.
    InvalidBundle
        If the folder is no bundle.
    TrainingError
        If the folder holds no finished folds of this model, or not what their networks made of the held-out cases.
    OutputExists
        If the bundle has an operating point already and `overwrite` is False.
    """
    wanted = parse_aim(aim) if isinstance(aim, str) else aim
    if not Path(bundle).is_dir():
        raise UsageError(f"{bundle}: no such folder; name the folder of the bundle that is to be tuned, by its path")
    given = read_bundle(Path(bundle))
    if (given.folder / POINT_PATH).exists() and not (overwrite or dry_run):
        raise OutputExists(f"{given.folder}: an operating point was chosen already; --overwrite chooses another")
    work = Path(work_dir) if work_dir is not None else given.folder.with_name(given.folder.name + ".training")
    plan = _trained_plan(given, work)
    monitor = Monitor(progress)
    point = find_point(work, plan, _folds(given, work), wanted, monitor, keep)
    for warning in warnings_of(point):
        monitor.remark(f"Warning: {warning}")
    if not dry_run:
        _write(given, point)
        validation = _validation(given)
        if validation is not None:
            write_validation_page(validation, work, point)
    return point


def find_point(
    work: Path, plan: Plan, folds: Sequence[int], aim: Aim, monitor: Monitor, keep: Sequence[str] = ()
) -> OperatingPoint:
    """Choose on what the folds of a work folder keep of their held-out cases.

    Parameters
    ----------
    work, plan
        Where the folds are, and the plan that they were trained by.
    folds
        Their numbers.
    aim
        What is to be reached.
    monitor
        Told of each case.
    keep
        As `tune`.

    Raises
    ------
    TrainingError, UsageError
        As `tune`.
    """
    kept = [(work / f"fold_{fold}", case) for fold in folds for case in read_fold(work / f"fold_{fold}", plan)]
    if not kept:
        raise TrainingError(
            f"{work}: no fold was cross-validated there, so there are no held-out cases to choose on; train with "
            "--cross-validate"
        )
    space = space_of(plan, [case for _, case in kept]).keeping(keep)
    columns = []
    with monitor.stage("tune", total=len(kept)):
        for folder, case in kept:
            columns.append(count_case(read_held_out(folder, case.case_id), space))
            monitor.advance()
    return choose_point(Counts.joined(columns), [case.fold for _, case in kept], space, aim, plan)


def _trained_plan(given: Bundle, work: Path) -> Plan:
    """The plan that the networks were trained by, once it is clear that the bundle's is the same but for its point."""
    path = work / "plan.json"
    if not path.is_file():
        raise TrainingError(
            f"{work}: no folds there. An operating point is chosen on held-out cases: train with --cross-validate, or "
            "name the folder that it was done in (--work-dir)"
        )
    plan = Plan.from_json(path.read_text(encoding="utf-8"), source=str(path))
    if Settings.of(plan).applied(given.plan) != plan:
        raise TrainingError(f"{work}: another model was trained there, by another plan than that of {given.folder}")
    return plan


def _folds(given: Bundle, work: Path) -> list[int]:
    """The folds that the bundle was cross-validated by, or all that are there."""
    validation = _validation(given)
    if validation is not None:
        return sorted({case.fold for case in validation.cases})
    names = [path.name.removeprefix("fold_") for path in work.glob("fold_*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdigit())


def _validation(given: Bundle) -> CrossValidation | None:
    path = given.folder / SCORES_PATH
    return CrossValidation.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def _write(given: Bundle, point: OperatingPoint) -> None:
    """The bundle's plan, configurations and card at the point; each file whole or not at all."""
    plan = point.applied(given.plan)
    card_path = given.folder / MODEL_CARD_PATH
    try:
        card = card_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{card_path}: the model card cannot be read: {error}") from error
    files = {PLAN_PATH: plan.model_dump(mode="json"), POINT_PATH: point.model_dump(mode="json"), **workflow_files(plan)}
    with atomic_folder(given.folder) as draft:
        for name, value in files.items():
            write_json(value, draft / name)
        (draft / MODEL_CARD_PATH).parent.mkdir(parents=True, exist_ok=True)
        (draft / MODEL_CARD_PATH).write_text(with_section(card, TITLE, as_markdown(point)), encoding="utf-8")
