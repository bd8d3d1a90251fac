"""What a training may start from: one of medseg's own bundles, or a fold of an nnU-Net model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from medseg.core.plan import ChannelPlan, InferencePlan, Plan, TrainingPlan
from medseg.errors import ChannelMismatch, UsageError
from medseg.io.manifest import DataManifest
from medseg.models.bundle import PLAN_PATH, Bundle, read_bundle
from medseg.models.nnunet import find_nnunet_folder
from medseg.models.nnunet_start import NnunetStart, read_nnunet_start
from medseg.models.own_network import own_network
from medseg.models.shipped import find_model
from medseg.training.preparation import TrainingData
from medseg.training.rules import choose_phantom_share, choose_separation

__all__ = ["Start", "named_classes", "read_model", "start_of"]


@dataclass(frozen=True, eq=False)
class Start:
    """A trained model to start from.

    Parameters
    ----------
    name, path
        What it is called, and where it lies.
    plan
        Its plan.
    weights
        Name to tensor, all of them.
    classes
        What its outputs mean; None where they are no classes that exclude each other.
    remarks
        What its user should know.
    """

    name: str
    path: Path
    plan: Plan
    weights: Mapping[str, torch.Tensor]
    classes: dict[int, str] | None
    remarks: tuple[str, ...] = ()

    @property
    def outputs(self) -> str:
        """What its outputs mean, in words."""
        if self.classes is None:
            return f"regions that overlap ({', '.join(self.plan.labels.regions)})"
        return f"the classes {named_classes(self.classes)}"


def named_classes(classes: Mapping[int, str]) -> str:
    """Class numbers and names in words."""
    return ", ".join(f"{number} = {name}" for number, name in classes.items())


def read_model(given: str | Path, fold: int | str | None = None) -> Bundle | NnunetStart:
    """Read the model that a training starts from.

    Parameters
    ----------
    given
        A bundle of medseg's own, by name or path; or an nnU-Net v2 model folder.
    fold
        Of an nnU-Net model; None for the first that it has.

    Raises
    ------
    UnknownModel, InvalidBundle, UnsupportedModel
        If there is no such model, it is damaged, or a plan cannot say what it is.
    UsageError
        If a fold is asked for that is not there.
    """
    path = find_model(given)
    folder = None if (path / PLAN_PATH).is_file() or not path.is_dir() else find_nnunet_folder(path)
    if folder is not None:
        return read_nnunet_start(folder, fold)
    if fold is not None:
        raise UsageError(f"{path}: a bundle has no folds to choose from; only an nnU-Net model has")
    return read_bundle(path)


def start_of(model: Bundle | NnunetStart, data: TrainingData) -> Start:
    """A model as the start of a training on some cases.

    nnU-Net's folders do not say modality and unit of a channel, nor how scans lie: the cases do.

    Raises
    ------
    InvalidBundle, UnsupportedModel
        If the weights do not fit, or a plan cannot say how an nnU-Net model normalizes.
    ChannelMismatch
        If an nnU-Net model has another number of channels than the manifest, or the same in another order.
    """
    if isinstance(model, NnunetStart):
        return _nnunet_start(model, data)
    plan = model.plan
    return Start(plan.name, model.folder, plan, own_network(model).state_dict(), dict(plan.labels.classes))


def _nnunet_start(start: NnunetStart, data: TrainingData) -> Start:
    _check_channels(start, data.manifest)
    plan = _plan_of_nnunet(start, data)
    is_of_classes = start.recipe.output.decision == "argmax"
    remarks = [
        f"start = {start.name}: {plan.network.kind} of {len(plan.network.filters)} levels, grid {plan.orientation}",
        *(
            f"channel {theirs.name} of the model = {ours.name} of the manifest, {ours.modality} in {ours.units} units"
            for theirs, ours in zip(start.recipe.channels, data.manifest.channels, strict=True)
        ),
    ]
    classes = dict(plan.labels.classes) if is_of_classes else None
    return Start(start.name, start.folder, plan, start.weights, classes, tuple(remarks))


def _plan_of_nnunet(start: NnunetStart, data: TrainingData) -> Plan:
    """The plan that a bundle of such a network would have, for scans like those to train on."""
    stored = Counter(case.scan.geometry.axcodes for case in data.cases).most_common(1)[0][0]
    spacing, windows = start.spacing_mm, start.recipe.windows
    separation, _ = choose_separation(spacing or (1.0, 1.0, 1.0))
    phantom_share, _ = choose_phantom_share(data.manifest)
    plan = Plan(
        name=start.name,
        channels=tuple(
            ChannelPlan(name=channel.name, modality=channel.modality, units=channel.units, intensity=intensity)
            for channel, intensity in zip(data.manifest.channels, start.intensities, strict=True)
        ),
        labels=start.recipe.labels,
        orientation=start.orientation(stored),
        spacing_mm=spacing,
        network=start.network,
        inference=InferencePlan(
            patch_size=windows.patch_size,
            overlap=windows.overlap,
            blend=windows.blend,
            windows_per_batch=1,  # nnU-Net's patches are large
            mirror_axes=windows.mirror_axes,
        ),
        separation=separation,
        training=TrainingPlan(phantom_share=phantom_share),
    )
    return Plan.from_json(plan.to_json(), source=f"plan of {start.name}")


def _check_channels(start: NnunetStart, data: DataManifest) -> None:
    """As many channels, and not the same ones in another order."""
    theirs = [channel.name for channel in start.recipe.channels]
    ours = [channel.name for channel in data.channels]
    folded = [[name.casefold() for name in names] for names in (theirs, ours)]
    if len(theirs) != len(ours) or (folded[0] != folded[1] and sorted(folded[0]) == sorted(folded[1])):
        raise ChannelMismatch(
            f"{start.folder}: the network takes {len(theirs)} channel(s) ({', '.join(theirs)}), manifest {data.name} "
            f"has {len(ours)} ({', '.join(ours)}); list the channels in the network's order, or train a network anew"
        )
