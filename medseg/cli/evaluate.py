"""`medseg evaluate`: predictions and references in, scores out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medseg.cli.console import print_json, show_progress
from medseg.cli.options import CaseId, Json, Overwrite, Quiet

if TYPE_CHECKING:
    from medseg.evaluation.evaluate import Evaluation
    from medseg.metrics.presets import Convention

__all__ = [
    "By",
    "Groups",
    "Like",
    "Match",
    "Page",
    "Preset",
    "Seed",
    "Threshold",
    "Tolerance",
    "convention_of",
    "evaluate",
]

_Prediction = Annotated[
    Path,
    typer.Argument(
        metavar="PRED", show_default=False, help="Predicted map, DICOM SEG or RTSTRUCT, or a folder of them."
    ),
]
_Reference = Annotated[
    Path, typer.Argument(metavar="REF", show_default=False, help="Reference map, or a folder with the same paths.")
]
_Output = Annotated[Path, typer.Option("--output", "-o", help="Scores to write: .json.", show_default=False)]
Page = Annotated[Path | None, typer.Option("--page", help="Page with figures to write: .html.")]
Preset = Annotated[
    str,
    typer.Option(
        "--preset",
        help="Convention: default, kirillov, panoptica, brats2023-gli|men|met|ped|ssa, cc-metrics, autopet, luna16, "
        "picai.",
    ),
]
Input = Annotated[
    Literal["lesions", "semantic", "detection-map"] | None,
    typer.Option(
        "--input",
        help="What the maps hold: lesion numbers, classes (separated by the preset's rule), or the confidences of "
        "candidates [default: the preset's].",
    ),
]
Match = Annotated[
    Literal["optimal", "greedy", "many-to-one", "merge", "all"] | None,
    typer.Option("--match", help="How lesions are assigned to each other [default: the preset's]."),
]
By = Annotated[
    Literal["iou", "dice", "overlap", "distance", "center", "dilated"] | None,
    typer.Option("--by", help="What makes a pair good enough [default: the preset's]."),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold", min=0.0, help="Score that a pair must exceed, or mm between centroids [default: the preset's]."
    ),
]
Tolerance = Annotated[float, typer.Option("--tolerance-mm", min=0.0, help="Of the normalized surface Dice.")]
Probability = Annotated[
    Path | None,
    typer.Option("--probability", help="Probability map, or a folder of them: scores of lesions, FROC, calibration."),
]
_Exclude = Annotated[
    Path | None, typer.Option("--exclude", help="Map of findings that count neither way, or a folder of them.")
]
Like = Annotated[
    Path | None,
    typer.Option(
        "--like",
        help="The scan that the maps lie in, for DICOM SEG and RTSTRUCT; for folders, a folder with a scan a case.",
    ),
]
Groups = Annotated[
    Path | None,
    typer.Option("--groups", help="CSV table with case_id, and optionally patient_id and columns of strata."),
]
OverlapOnly = Annotated[bool, typer.Option("--overlap-only", help="No surface distances, no diameters.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap over patients.")]


def evaluate(
    prediction: _Prediction,
    reference: _Reference,
    output: _Output,
    preset: Preset = "default",
    input_kind: Input = None,
    match: Match = None,
    by: By = None,
    threshold: Threshold = None,
    dilation: Annotated[
        int | None, typer.Option("--dilation", min=0, help="Voxels by which --by dilated grows the reference.")
    ] = None,
    tolerance_mm: Tolerance = 1.0,
    probability: Probability = None,
    exclude: _Exclude = None,
    like: Like = None,
    groups: Groups = None,
    case_id: CaseId = None,
    overlap_only: OverlapOnly = False,
    seed: Seed = 0,
    page: Page = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score predicted lesions against reference lesions.

    By a published convention or a rule of your own. Two files are one case; the files of two folders are paired by
    their path below the folder. What each preset does, and what it gives in empty cases, is in
    docs/reference/evaluation.md and in the output.

    \b
    Example:
      medseg evaluate predictions references --preset kirillov -o scores.json
    """  # noqa: D301
    from medseg.core.monitor import Monitor
    from medseg.evaluation.evaluate import evaluate_cohort
    from medseg.evaluation.page import write_evaluation_page
    from medseg.io.atomic import check_output_folder
    from medseg.io.json_files import write_json

    for file in (output, *([page] if page else [])):
        check_output_folder(file.parent, [file.name], overwrite=overwrite)
    convention = convention_of(preset, match, by, threshold, dilation)
    with show_progress(quiet=quiet) as progress:
        monitor = Monitor(progress)
        with monitor.stage("evaluate"):
            result = evaluate_cohort(
                prediction,
                reference,
                convention,
                input_kind=input_kind,
                probabilities=probability,
                excluded=exclude,
                like=like,
                groups=groups,
                case_id=case_id,
                tolerance_mm=tolerance_mm,
                overlap_only=overlap_only,
                seed=seed,
                monitor=monitor,
            )
    record = result.model_dump(mode="json")
    write_json(record, output)
    if page:
        write_evaluation_page(result, page)
    if as_json:
        print_json(record)
    else:
        typer.echo("\n".join(_lines(result)))
        typer.echo(f"\nWritten to {output}" + (f" and {page}" if page else ""))


def convention_of(
    preset: str, match: Any = None, by: Any = None, threshold: float | None = None, dilation: int | None = None
) -> Convention:
    """The preset with what was given on the command line; a changed preset says so in its name."""
    from medseg.metrics.presets import get_convention

    convention = get_convention(preset)
    given = {"assignment": match, "by": by, "threshold": threshold, "dilation_voxels": dilation}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        return convention
    rule = convention.matching.model_validate({**convention.matching.model_dump(), **changes})
    return convention.model_copy(update={"matching": rule, "name": f"{preset}, changed", "published": None})


def _lines(result: Evaluation) -> list[str]:
    """What the terminal shows: the convention, then the figures of one case, or of the cohort with intervals."""
    rule = result.convention.matching
    lines = [
        f"{result.preset}: {result.convention.title}; {rule.assignment} by {rule.by}, "
        f"{'above' if rule.strict else 'at least'} {rule.threshold:g}; maps read as {result.input}"
    ]
    cohort = result.cohort
    lines += [
        f"{cohort.n_cases} case(s), {cohort.n_patients} patient(s); {cohort.n_reference} reference and "
        f"{cohort.n_prediction} predicted lesion(s): {cohort.tp} found, {cohort.fn} missed, {cohort.fp} false",
        "",
    ]
    for title, estimates in (("mean over cases", cohort.macro), ("all lesions together", cohort.micro)):
        lines.append(title)
        for name, estimate in estimates.items():
            if estimate.value is not None:
                between = "" if estimate.low is None else f"  [{estimate.low:.4g}, {estimate.high:.4g}]"
                lines.append(f"  {name:<28} {estimate.value:>10.4g}{between}")
    return lines
