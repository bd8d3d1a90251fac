"""The model card: what a bundle is, what it was trained on, what it is worth, where it fails."""

from __future__ import annotations

from medseg.core.plan import Plan, TrainingPlan
from medseg.io.manifest import DataManifest
from medseg.training.operating_point import OperatingPoint
from medseg.training.operating_text import TITLE, as_markdown
from medseg.training.reasons import PlanReasons
from medseg.training.scores import CaseScore, CrossValidation

__all__ = ["model_card", "with_section"]

_POOR_DICE = 0.7
_NETWORK_NAMES = {
    "unet": "3-D U-Net",
    "segresnet": "3-D U-Net of pre-activation residual blocks (SegResNet)",
    "plain_conv_unet": "3-D U-Net of nnU-Net's (PlainConvUNet)",
    "residual_encoder_unet": "3-D U-Net of nnU-Net's with a residual encoder (ResidualEncoderUNet)",
}


def model_card(
    plan: Plan,
    data: DataManifest,
    reasons: PlanReasons,
    validation: CrossValidation | None,
    started_from: str | None = None,
    point: OperatingPoint | None = None,
) -> str:
    """The card as Markdown text; every figure in it comes from the arguments."""
    sections = [
        f"# {plan.name}",
        data.description,
        "**For research use only. This is no medical device.**",
        "## Data\n\n" + _data_text(data),
        "## Model and training\n\n" + _training_text(plan) + _start_text(started_from),
        "## Why this plan\n\n" + _reasons_text(reasons, started_from),
        "## What it is worth on patients that it has not seen\n\n" + _worth_text(validation),
        "## Limits\n\n" + "\n".join(f"* {note}" for note in (*_limits(plan), *data.notes)),
        f"## Use\n\n    medseg segment SCAN --model {plan.name} -o OUT\n\n"
        "or, without medseg and without lesions, with plain MONAI "
        "(`pip install monai nibabel fire pytorch-ignite`):\n\n"
        "    python -m monai.bundle run --config_file configs/inference.json --bundle_root . --dataset_dir SCANS\n",
    ]
    card = "\n\n".join(sections)
    return card if point is None else with_section(card, TITLE, as_markdown(point))


def with_section(card: str, title: str, text: str) -> str:
    """A card with a section in place of that of the same title, or else before its limits."""
    heading = f"## {title}\n"
    before, found, after = card.partition(heading)
    if found:
        _, following, rest = after.partition("\n## ")
    else:
        before, following, rest = card.partition("## Limits")
    if not following:
        return f"{before.rstrip()}\n\n{heading}\n{text}\n"
    return f"{before.rstrip()}\n\n{heading}\n{text}\n\n{following.lstrip()}{rest}"


def _data_text(data: DataManifest) -> str:
    channels = ", ".join(f"{channel.name} ({channel.modality}, {channel.units})" for channel in data.channels)
    classes = ", ".join(f"{number} = {name}" for number, name in data.labels.items())
    cases = data.of_split("train")
    others = len(data.cases) - len(cases)
    aside = f" {others} more of the manifest, to validate or test on, were not trained on." if others else ""
    return (
        f"{len(cases)} cases.{aside} Channels: {channels}. Classes: {classes}.\n\n"
        f"Source: {data.source}\n\nLicense of the data: {data.licence} ({data.licence_url})\n\n{data.attribution}"
    )


def _training_text(plan: Plan) -> str:
    network, training = plan.network, plan.training
    grid = "its own grid" if plan.spacing_mm is None else " x ".join(f"{s:g}" for s in plan.spacing_mm) + " mm"
    members = f"The mean of {network.members} networks, each a " if network.members > 1 else ""
    return (
        f"{members}{_NETWORK_NAMES[network.kind]} with {', '.join(map(str, network.filters))} filters, {_units(plan)}, "
        f"{network.norm} normalization. Scans are brought to {plan.orientation} orientation and {grid}; windows "
        f"of {' x '.join(map(str, plan.inference.patch_size))} voxels.\n\n"
        f"{training.steps} steps of {training.batch_size} samples, AdamW, learning rate {training.learning_rate:g}, "
        f"weight decay {training.weight_decay:g}, {_loss_text(plan)}, {_variation_text(training)}; "
        f"{100 * training.crop_share:g} % of the samples are cut to random margins, "
        f"{100 * training.phantom_share:g} % are synthetic phantoms with several lesions or none; the weights are the "
        f"moving average over the steps (decay {training.ema_decay:g}). Seed {training.seed}.{_kept_text(training)}"
    )


def _loss_text(plan: Plan) -> str:
    classes = "Dice and cross-entropy loss"
    if not plan.network.instance_heads or plan.heads_training is not None:
        return classes
    if plan.training.lesion_loss == "blob":
        classes += " and blob loss"
    votes = f" with the error of their owner (weight {plan.training.owner_weight:g})" * (plan.training.owner_weight > 0)
    return f"{classes}, squared error of the center heatmap and smooth L1 error of the offsets{votes}, lesion by lesion"


def _variation_text(training: TrainingPlan) -> str:
    varied = "rotations, scalings, intensity changes, noise and blur"
    if training.variation_share == 1:
        return f"flips, {varied}"
    return f"flips, and in {100 * training.variation_share:g} % of the samples {varied}"


def _start_text(started_from: str | None) -> str:
    if started_from is None:
        return ""
    return (
        f"\n\nTraining started from the weights of {started_from}; its own cases, and its license, count for this "
        "model too. Scores on patients that it was trained on would say nothing."
    )


def _reasons_text(reasons: PlanReasons, started_from: str | None) -> str:
    lines = [*map(str, reasons.reasons), *(f"Warning: {warning}" for warning in reasons.warnings)]
    if started_from is not None:
        lines.insert(0, f"network, grid, intensities, windows and separation are those of {started_from}")
    return "\n".join(f"* {line}" for line in lines) or "It was given, and not made from the cases."


def _kept_text(training: TrainingPlan) -> str:
    if not training.validate_every:
        return ""
    patience = (
        f" Training ended after {training.patience} validations without a better one, or after the last step."
        if training.patience
        else ""
    )
    return (
        f" Every {training.validate_every} steps, scans that are not trained on were segmented whole; the weights of "
        f"the best mean of Dice and lesion F1 were kept.{patience}"
    )


def _units(plan: Plan) -> str:
    units = plan.network.residual_units
    if plan.network.is_nnunet:
        what = "convolutions" if plan.network.kind == "plain_conv_unet" else "residual blocks"
        shown = units if isinstance(units, int) else ", ".join(map(str, units))
        return f"{shown} {what} a level on the way down"
    if isinstance(units, int):
        return f"{units} residual units a level"
    return f"{', '.join(map(str, units))} residual blocks on the way down"


def _worth_text(validation: CrossValidation | None) -> str:
    if validation is None:
        return "Not measured: this network was trained without cross-validation."
    rows = "\n".join(_row(case) for case in validation.cases)
    return (
        f"{validation.n_folds}-fold cross-validation with the same training, each patient scored once by a network "
        "that never saw it; means with 95 % bootstrap intervals over patients:\n\n"
        f"* Dice {validation.dice}\n"
        f"* Dice {validation.dice_recut} on the same patients cut anew, each margin around the lesions at a random "
        "share (a tenth to all) of what it was: what the network is worth where a scan's edges say less of where the "
        "lesion is\n"
        f"* absolute volume error {validation.absolute_volume_error_ml} ml\n"
        f"* absolute volume error relative to the reference {validation.absolute_relative_volume_error}\n"
        f"* lesions found: {validation.n_found} of {validation.n_reference} (found: at least half of its voxels "
        f"predicted); false lesions (touching no reference): {validation.n_false}\n\n"
        "The shipped network is trained on all cases; its own score on them would say nothing and is not given.\n\n"
        "| case | fold | Dice | Dice, cut anew | reference ml | predicted ml | volume error | found | false lesions |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
        f"{rows}\n\n### Failures\n\n{_failures(validation)}"
    )


def _row(case: CaseScore) -> str:
    dice, recut = ("-" if value is None else f"{value:.3f}" for value in (case.dice, case.dice_recut))
    error = "-" if case.reference_ml == 0 else f"{100 * case.volume_error_ml / case.reference_ml:+.0f} %"
    return (
        f"| {case.case_id} | {case.fold} | {dice} | {recut} | {case.reference_ml:.1f} | {case.predicted_ml:.1f} "
        f"| {error} | {case.n_found} of {case.n_reference} | {case.n_false} |"
    )


def _failures(validation: CrossValidation) -> str:
    poor = sorted((c for c in validation.cases if c.dice is not None and c.dice < _POOR_DICE), key=_dice_of)
    if not poor:
        return f"No case below Dice {_POOR_DICE}."
    lines = [f"* {case.case_id}: Dice {_dice_of(case):.3f}; {_what_went_wrong(case)}" for case in poor]
    return f"Cases below Dice {_POOR_DICE}, worst first:\n\n" + "\n".join(lines)


def _dice_of(case: CaseScore) -> float:
    return case.dice if case.dice is not None else 0.0


def _what_went_wrong(case: CaseScore) -> str:
    missed = case.n_reference - case.n_found
    parts = [f"{case.predicted_ml:.0f} ml predicted for {case.reference_ml:.0f} ml"]
    if missed:
        parts.append(f"{missed} of {case.n_reference} lesion(s) not found")
    if case.n_false:
        parts.append(f"{case.n_false} false lesion(s)")
    return ", ".join(parts)


def _limits(plan: Plan) -> list[str]:
    channels = ", ".join(f"{channel.modality} in {channel.units} units" for channel in plan.channels)
    return [f"Expects {channels}; other modalities or units give wrong results without a warning from the network."]
