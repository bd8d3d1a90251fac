"""From a data manifest to a plan: the rules in order, within what may be spent, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from medseg.core.plan import ChannelPlan, InferencePlan, IntensityPlan, Plan, TrainingPlan, with_changes
from medseg.errors import TrainingError, UsageError
from medseg.io.labelled_cases import LabelledCase
from medseg.io.manifest import DataManifest
from medseg.training import rules
from medseg.training.datasets import load_case
from medseg.training.fingerprint import Fingerprint
from medseg.training.reasons import Reason
from medseg.training.step_cost import seconds_a_step, training_bytes

__all__ = ["Budget", "Planned", "plan_training", "plan_with_reasons", "within_minutes"]

_MIB = 2**20
_SMALLER = 0.8  # share of the voxels of a window that is tried next
_LEAST_PATCH_VOXELS = 16**3
_TIMED_CASES = 4
_USED_SHARE = 0.9  # of the minutes: logs, checkpoints and the export take the rest
_LEAST_STEPS_A_MEMBER = 300  # with fewer, fewer networks that are trained longer are worth more


@dataclass(frozen=True)
class Budget:
    """What training may spend: MiB that the process may hold, minutes a network (all its members); None for any."""

    memory_mib: float | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("memory", self.memory_mib), ("minutes", self.minutes)):
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"a budget of {name} is a number above 0; got {value}")


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan, the reasons for its choices, and what its user should know before training."""

    plan: Plan
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()


def plan_training(manifest: DataManifest, fingerprint: Fingerprint) -> Plan:
    """The plan that suits a data set; every field of it can be changed before training."""
    return plan_with_reasons(manifest, fingerprint).plan


def plan_with_reasons(manifest: DataManifest, fingerprint: Fingerprint, memory_mib: float | None = None) -> Planned:
    """The plan that suits a data set, with the reason for each choice.

    Parameters
    ----------
    manifest, fingerprint
        What the cases are, and what they look like.
    memory_mib
        What the process may hold while it trains; smaller windows, then smaller batches are taken to stay within it.

    Raises
    ------
    TrainingError
        If even the smallest window needs more.
    """
    spacing, of_spacing = rules.choose_spacing(fingerprint)
    network, of_network = rules.choose_network()
    patch, of_patch = rules.choose_patch(fingerprint, spacing, network)
    intensities = [
        rules.choose_intensity(*looks)
        for looks in zip(manifest.channels, fingerprint.foreground, fingerprint.zero_shares, strict=True)
    ]
    least_peak, of_peak = rules.choose_least_peak(manifest)
    separation, of_separation = rules.choose_separation(spacing)
    phantom_share, of_phantoms = rules.choose_phantom_share(manifest)
    is_deep, of_supervision = rules.choose_deep_supervision()
    plan = Plan(
        name=manifest.name,
        channels=tuple(
            ChannelPlan(name=channel.name, modality=channel.modality, units=channel.units, intensity=intensity)
            for channel, (intensity, _) in zip(manifest.channels, intensities, strict=True)
        ),
        labels=manifest.scheme,
        spacing_mm=spacing,
        network=network,
        inference=InferencePlan(patch_size=patch, mirror_axes=(0, 1, 2), least_peak=least_peak),
        separation=separation,
        training=TrainingPlan(steps=rules.STEPS, phantom_share=phantom_share, deep_supervision=is_deep),
    )
    reasons = (
        Reason("spacing_mm", _by(spacing), of_spacing),
        Reason("network", f"{network.members} x {network.kind}, filters {network.filters}", of_network),
        *(
            Reason(f"intensity of {channel.name}", _mapping(plan), why)
            for channel, (plan, why) in zip(manifest.channels, intensities, strict=True)
        ),
        Reason("inference.patch_size", _by(patch), of_patch),
        Reason("inference.mirror_axes", "all", "training mirrors all axes, so the mean over mirrored scans errs less"),
        Reason("inference.least_peak", str(least_peak), of_peak),
        Reason("separation.h_min_mm", f"{separation.h_min_mm:g}", of_separation),
        Reason("training.phantom_share", f"{phantom_share:g}", of_phantoms),
        Reason("training.deep_supervision", "on" if is_deep else "off", of_supervision),
    )
    warning = rules.find_lesions_below_the_grid(fingerprint, spacing)
    planned = Planned(plan, reasons, () if warning is None else (warning,))
    return planned if memory_mib is None else _within_memory(planned, fingerprint, memory_mib)


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _mapping(intensity: IntensityPlan) -> str:
    if intensity.standardize == "none":
        return f"{intensity.low:g} to {intensity.high:g}"
    of = "all voxels" if intensity.standardize == "scan" else "the voxels that are not 0"
    return f"mean 0 and standard deviation 1 of {of} of each scan"


def _within_memory(planned: Planned, fingerprint: Fingerprint, memory_mib: float) -> Planned:
    """The largest window, then the largest batch, that training can hold."""
    plan, n_voxels = planned.plan, float(rules.PATCH_VOXELS)
    spacing = plan.spacing_mm or fingerprint.spacing_mm
    while (needed := training_bytes(plan, fingerprint.total_mm3) / _MIB) > memory_mib:
        n_voxels *= _SMALLER
        if n_voxels >= _LEAST_PATCH_VOXELS:
            patch, _ = rules.choose_patch(fingerprint, spacing, plan.network, int(n_voxels))
            plan = with_changes(plan, {"inference": {"patch_size": patch}})
        elif plan.training.batch_size > 1:
            plan = with_changes(plan, {"training": {"batch_size": plan.training.batch_size - 1}})
        else:
            raise TrainingError(
                f"{plan.name}: training needs about {needed:.0f} MiB even with windows of "
                f"{_by(plan.inference.patch_size)} voxels, one at a time; {memory_mib:.0f} MiB are allowed. Allow "
                "more, or give a plan with a coarser spacing_mm"
            )
    size = f"windows of {_by(plan.inference.patch_size)} voxels, {plan.training.batch_size} a batch"
    why = f"training takes about {needed:.0f} MiB of the {memory_mib:.0f} MiB allowed"
    reasons = planned.reasons
    if plan != planned.plan:
        voxels = _by(plan.inference.patch_size)
        reasons = _instead(reasons, Reason("inference.patch_size", voxels, "what the memory allowed can train on"))
    return replace(planned, plan=plan, reasons=(*reasons, Reason("memory", size, why)))


def _instead(reasons: Sequence[Reason], new: Reason) -> tuple[Reason, ...]:
    """A choice that was made anew, in the place of the old one."""
    return tuple(new if reason.field == new.field else reason for reason in reasons)


def within_minutes(
    planned: Planned, cases: Sequence[LabelledCase], minutes: float, device: torch.device, n_devices: int = 1
) -> Planned:
    """A plan with as many steps as a network can be trained for in some minutes on this machine, by timing a few.

    Raises
    ------
    TrainingError
        If not even one step a member fits.
    """
    plan = planned.plan
    chosen = [cases[n * len(cases) // min(_TIMED_CASES, len(cases))] for n in range(min(_TIMED_CASES, len(cases)))]
    seconds = seconds_a_step([load_case(case, plan) for case in chosen], plan, device, n_devices)
    in_all = int(minutes * 60 * _USED_SHARE / seconds)
    members = max(1, min(plan.network.members, in_all // _LEAST_STEPS_A_MEMBER))
    steps = in_all // members
    if steps < 1:
        raise TrainingError(
            f"{plan.name}: a step takes {seconds:.1f} s here; {minutes:g} minutes are too few to train in"
        )
    training = {
        "steps": steps,
        "warmup_steps": min(plan.training.warmup_steps, steps // 10),
        "checkpoint_every": max(1, min(plan.training.checkpoint_every, steps // 4)),
    }
    reason = Reason(
        "training.steps",
        f"{steps}, {members} member(s)",
        f"{minutes:g} minutes a network on this machine, at {seconds:.2f} s a step",
    )
    reasons = planned.reasons
    if members != plan.network.members:
        value = f"{members} x {plan.network.kind}, filters {plan.network.filters}"
        reasons = _instead(reasons, Reason("network", value, "the minutes are too few for more networks"))
    plan = with_changes(plan, {"training": training, "network": {"members": members}})
    return replace(planned, plan=plan, reasons=(*reasons, reason))
