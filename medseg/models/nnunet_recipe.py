"""From nnU-Net's plans.json and dataset.json to a recipe: what nnU-Net would do to a scan, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from medseg.core.recipe import ChannelSpec, OutputPlan, Recipe, WindowPlan
from medseg.core.steps import (
    AppendPreviousStage,
    CropNonzero,
    NnunetChannel,
    NormalizeAsNnunet,
    Orient,
    PreparationStep,
    RespaceAsNnunet,
    Transpose,
)
from medseg.errors import InvalidBundle
from medseg.models.nnunet_labels import NnunetLabels

__all__ = ["channel_names", "recipe_of_nnunet"]

_SCHEMES = {
    "CTNormalization": "ct",
    "ZScoreNormalization": "zscore",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale_01",
    "RGBTo01Normalization": "rgb_01",
}
_READERS_AS_STORED = {"SimpleITKIO", "NibabelIO", "Tiff3DIO"}
_READERS_IN_RAS = {"SimpleITKIOWithReorient", "NibabelIOWithReorient"}
_SPLINES, _TORCH = "resample_data_or_seg_to_shape", "resample_torch_fornnunet"
_UNCHANGED = "no_resampling_hack"
_ANISOTROPY = 3.0
_FILE_ORDER = (2, 1, 0)  # nnU-Net's arrays are (z, y, x)


def recipe_of_nnunet(
    name: str,
    plans: Mapping[str, Any],
    configuration: Mapping[str, Any],
    dataset: Mapping[str, Any],
    labels: NnunetLabels,
    mirror_axes: Sequence[int],
    source: Path,
) -> Recipe:
    """The recipe of one configuration.

    Parameters
    ----------
    name
        Of the model.
    plans, configuration, dataset
        plans.json, the configuration with what it inherits, dataset.json.
    labels
        From `labels_of`.
    mirror_axes
        What the checkpoint allows, counted over the network's dimensions.
    source
        The plans file, for messages.

    Raises
    ------
    InvalidBundle
        If the plans ask for something that medseg has not, or lack an entry.
    """
    try:
        is_2d = len(configuration["patch_size"]) == 2
        resampling = str(configuration.get("resampling_fn_probabilities", _SPLINES))
        back = dict(configuration.get("resampling_fn_probabilities_kwargs") or {})
        return Recipe(
            name=name,
            family="nnunet",
            channels=_channels(dataset, source),
            labels=labels.scheme,
            preparation=_preparation(plans, configuration, labels, source),
            windows=WindowPlan(
                patch_size=(*([1] if is_2d else []), *configuration["patch_size"]),
                overlap=0.5,
                rule="nnunet",
                blend="gaussian",
                mirror_axes=_mirrored(mirror_axes, is_2d, source),
                accumulates_half=True,
            ),
            output=OutputPlan(
                activation="sigmoid" if labels.decision == "threshold" else "none",
                decision=labels.decision,
                paint=labels.paint,
                interpolates="logits",
                interpolation_order=_order(back, "order", 1, source),
                order_z=_order(back, "order_z", 0, source),
                rounds_to_half=_checked_resampling(resampling, source) != _TORCH,
            ),
        )
    except (KeyError, TypeError, IndexError) as error:
        raise InvalidBundle(f"{source}: the plans are incomplete or malformed ({error!r})") from error


def channel_names(dataset: Mapping[str, Any], source: Path) -> list[str]:
    """Names of the input channels in order."""
    named = dataset.get("channel_names") or dataset.get("modality")
    if not isinstance(named, Mapping) or not named:
        raise InvalidBundle(f"{source.parent / 'dataset.json'}: no channel_names there")
    return [str(named[number]) for number in sorted(named, key=int)]


def _channels(dataset: Mapping[str, Any], source: Path) -> tuple[ChannelSpec, ...]:
    """The channels; modality and unit are known where medseg exported the model, and said so under its own key."""
    names = channel_names(dataset, source)
    own = dataset.get("medseg")
    if own is None:
        return tuple(ChannelSpec(name=name) for name in names)
    try:
        return tuple(ChannelSpec(name=name, **said) for name, said in zip(names, own["channels"], strict=True))
    except (ValidationError, KeyError, TypeError, ValueError) as error:
        raise InvalidBundle(
            f"{source.parent / 'dataset.json'}: what medseg says of the channels is malformed: {error}"
        ) from error


def _preparation(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], labels: NnunetLabels, source: Path
) -> tuple[PreparationStep, ...]:
    _refuse_own_code(plans, configuration, source)
    forward = tuple(int(axis) for axis in plans["transpose_forward"])
    channels = _normalizations(plans, configuration, source)
    steps: list[PreparationStep] = []
    if _reader(plans, source) in _READERS_IN_RAS:
        steps.append(Orient(axcodes="RAS"))
    steps.append(Transpose(axes=_FILE_ORDER, is_packed=True))
    if forward != (0, 1, 2):
        steps.append(Transpose(axes=forward))
    steps.append(CropNonzero(keeps_mask=any(channel.is_masked for channel in channels)))
    steps.append(NormalizeAsNnunet(channels=channels))
    steps += _respacing(configuration, source)
    if configuration.get("previous_stage"):
        steps.append(AppendPreviousStage(classes=labels.foreground))
    return tuple(steps)


def _respacing(configuration: Mapping[str, Any], source: Path) -> list[PreparationStep]:
    function = _checked_resampling(str(configuration.get("resampling_fn_data", _SPLINES)), source)
    probabilities = str(configuration.get("resampling_fn_probabilities", _SPLINES))
    if _UNCHANGED in (function, probabilities) and function != probabilities:
        raise InvalidBundle(
            f"{source}: data and logits must both be resampled or neither; got {function}, {probabilities}"
        )
    if function == _UNCHANGED:
        return []
    if configuration.get("previous_stage") and configuration.get("resampling_fn_seg", _SPLINES) != _SPLINES:
        raise InvalidBundle(f"{source}: the class map of a cascade is resampled by {_SPLINES} only")
    there = dict(configuration.get("resampling_fn_data_kwargs") or {})
    back = dict(configuration.get("resampling_fn_probabilities_kwargs") or {})
    spacing = configuration["spacing"]
    return [
        RespaceAsNnunet(
            spacing_mm=(None, *spacing) if len(spacing) == 2 else tuple(spacing),
            order=int(there.get("order", 3)),
            order_z=int(there.get("order_z", 0)),
            force_separate_z=there.get("force_separate_z"),
            anisotropy=float(there.get("separate_z_anisotropy_threshold", _ANISOTROPY)),
            is_torch=function == _TORCH,
            back_force_separate_z=back.get("force_separate_z"),
            back_anisotropy=float(back.get("separate_z_anisotropy_threshold", _ANISOTROPY)),
        )
    ]


def _normalizations(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], source: Path
) -> tuple[NnunetChannel, ...]:
    intensities = plans.get("foreground_intensity_properties_per_channel") or plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    masked = configuration.get("use_mask_for_norm") or []
    channels = []
    for number, scheme in enumerate(configuration["normalization_schemes"]):
        if scheme not in _SCHEMES:
            raise InvalidBundle(
                f"{source}: normalization {scheme} is not supported; supported are {', '.join(sorted(_SCHEMES))}"
            )
        numbers = intensities[str(number)] if scheme == "CTNormalization" else {}
        is_masked = masked[str(number)] if isinstance(masked, Mapping) else masked[number]
        channels.append(
            NnunetChannel(
                scheme=_SCHEMES[scheme],
                is_masked=bool(is_masked) and scheme == "ZScoreNormalization",
                **{key: float(numbers[key]) for key in _CT_NUMBERS if numbers},
            )
        )
    return tuple(channels)


def _mirrored(axes: Sequence[int], is_2d: bool, source: Path) -> tuple[Literal[0, 1, 2], ...]:
    """Axes of the volume; those of a slice come after its own."""
    n = 2 if is_2d else 3
    if any(axis not in range(n) for axis in axes):
        raise InvalidBundle(f"{source}: the checkpoint mirrors axes {tuple(axes)} of a network of {n} dimensions")
    found: tuple[Literal[0, 1, 2], ...] = tuple(int(axis) + is_2d for axis in axes)  # type: ignore[misc]
    return found


_CT_NUMBERS = ("mean", "std", "percentile_00_5", "percentile_99_5")


def _reader(plans: Mapping[str, Any], source: Path) -> str:
    reader = str(plans.get("image_reader_writer", "SimpleITKIO"))
    if reader == "NaturalImage2DIO":
        raise InvalidBundle(f"{source}: the model is for flat pictures (NaturalImage2DIO); medseg segments volumes")
    if reader not in _READERS_AS_STORED | _READERS_IN_RAS:
        known = ", ".join(sorted(_READERS_AS_STORED | _READERS_IN_RAS))
        raise InvalidBundle(f"{source}: image reader {reader} is not supported; supported are {known}")
    return reader


def _refuse_own_code(plans: Mapping[str, Any], configuration: Mapping[str, Any], source: Path) -> None:
    """A preprocessor or label manager of somebody's own would do other things than nnU-Net's."""
    for what, found, known in (
        ("preprocessor", configuration.get("preprocessor_name", "DefaultPreprocessor"), "DefaultPreprocessor"),
        ("label manager", plans.get("label_manager") or "LabelManager", "LabelManager"),
    ):
        if found != known:
            raise InvalidBundle(f"{source}: the model has its own {what} ({found}); only {known} is supported")


def _checked_resampling(function: str, source: Path) -> str:
    if function not in (_SPLINES, _TORCH, _UNCHANGED):
        raise InvalidBundle(
            f"{source}: resampling by {function} is not supported; supported are {_SPLINES}, {_TORCH}, {_UNCHANGED}"
        )
    return function


def _order(keywords: Mapping[str, Any], key: str, default: int, source: Path) -> Any:
    order = int(keywords.get(key, default))
    if order not in (0, 1):
        raise InvalidBundle(f"{source}: logits are resampled with {key} {order}; 0 and 1 are supported")
    return order
