"""A medseg bundle as an nnU-Net v2 model folder, where nnU-Net can do what the bundle's plan asks for.

nnU-Net knows no lesions, only classes. It resamples and lays windows by its own rules, so that its map is the bundle's
up to interpolation and blending; it equals what medseg gives for the folder itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from medseg.core.plan import UNCLIPPED_STD, IntensityPlan, Plan
from medseg.errors import OutputExists, UnsupportedModel
from medseg.io.atomic import atomic_folder
from medseg.io.json_files import write_json
from medseg.models.bundle import Bundle
from medseg.models.own_network import own_weights
from medseg.networks.nnunet import NnunetArchitecture
from medseg.networks.nnunet_checkpoint import write_nnunet_checkpoint
from medseg.networks.nnunet_plan import nnunet_architecture

__all__ = ["NNUNET_PLANS_FILE", "export_nnunet", "nnunet_dataset", "nnunet_plans", "notes_for_nnunet"]

NNUNET_PLANS_FILE = "plans.json"
_CONFIGURATION = "3d_fullres"
_FILE_ORDER = "SAR"  # nnU-Net's arrays (z, y, x) once its reader has turned a scan to RAS
_CLASSES = {"plain": "PlainConvUNet", "residual_encoder": "ResidualEncoderUNet"}
_TAKEN = {"background", "ignore"}  # labels that mean something else to nnU-Net
_SPLINES = "resample_data_or_seg_to_shape"
_OWN_GRID = "no_resampling_hack"


def export_nnunet(bundle: Bundle, folder: Path) -> Path:
    """Write a bundle's model as an nnU-Net v2 model folder; members of an ensemble become its folds.

    Parameters
    ----------
    bundle
        The bundle.
    folder
        Made; its files are replaced if they are there. `nnUNetv2_predict_from_modelfolder -m FOLDER` and medseg run it.

    Raises
    ------
    UnsupportedModel
        If nnU-Net cannot do what the plan asks for; the message names all of it.
    InvalidBundle
        If the weights are damaged.
    OutputExists
        If there are folds that the model has not: nnU-Net would average them in.
    OutputNotWritable
        If the folder cannot be written.
    """
    plan = bundle.plan
    reasons = _what_nnunet_cannot(plan)
    if reasons:
        listed = "\n  ".join(reasons)
        raise UnsupportedModel(f"{bundle.folder}: nnU-Net cannot run this model:\n  {listed}")
    weights, n_members = own_weights(bundle), plan.network.members
    others = sorted({path.name for path in folder.glob("fold_*")} - {f"fold_{n}" for n in range(n_members)})
    if others:
        raise OutputExists(
            f"{folder}: {', '.join(others)} of another model are there; remove them, or name another folder"
        )
    plans = nnunet_plans(plan)
    with atomic_folder(folder) as draft:
        write_json(plans, draft / NNUNET_PLANS_FILE)
        write_json(nnunet_dataset(plan), draft / "dataset.json")
        for member in range(n_members):
            prefix = f"{member}." if n_members > 1 else ""
            own = {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
            write_nnunet_checkpoint(
                draft / f"fold_{member}" / "checkpoint_final.pth",
                _with_all_heads(own, plan),
                arguments={
                    "plans": plans,
                    "configuration": _CONFIGURATION,
                    "fold": member,
                    "dataset_json": nnunet_dataset(plan),
                },
                mirror_axes=plan.inference.mirror_axes,
            )
    return folder


def notes_for_nnunet(plan: Plan) -> list[str]:
    """What of a plan nnU-Net leaves to its user, in sentences."""
    notes = [
        f"channel {channel.name} must be in SUV: nnU-Net takes the numbers of a file as they are"
        for channel in plan.channels
        if channel.units == "suv"
    ]
    notes.append("nnU-Net marks classes; lesions are separated by medseg only")
    return notes


def _what_nnunet_cannot(plan: Plan) -> list[str]:
    """Each thing that a plan asks for and nnU-Net has not."""
    network, reasons = plan.network, []
    if not network.is_nnunet:
        reasons.append(
            f"the network is MONAI's ({network.kind}); plans of kind plain_conv_unet or residual_encoder_unet have "
            "nnU-Net's"
        )
    if network.instance_heads:
        reasons.append("it has instance heads, nnU-Net has classes only")
    if set(plan.orientation) != set("RAS"):
        reasons.append(f"its grid is {plan.orientation}; nnU-Net's readers turn scans to R, A and S only")
    if plan.inference.least_peak is not None:
        reasons.append(f"regions below a peak of {plan.inference.least_peak:g} are left out (inference.least_peak)")
    if plan.inference.foreground_threshold is not None:
        reasons.append(
            f"it marks from a foreground probability of {plan.inference.foreground_threshold:g} on "
            "(inference.foreground_threshold); in nnU-Net the likeliest class wins"
        )
    for channel in plan.channels:
        if channel.intensity.transform != "none":
            reasons.append(
                f"channel {channel.name} goes through a {channel.intensity.transform}; nnU-Net's normalizations clip, "
                "shift and scale"
            )
        elif _is_changed_after(channel.intensity):
            reasons.append(
                f"channel {channel.name} is standardized and then clipped, shifted or scaled; nnU-Net's z-scores stay"
            )
    numbers, names = list(plan.labels.classes), list(plan.labels.classes.values())
    if numbers != list(range(1, len(numbers) + 1)):
        reasons.append(f"its class numbers are {numbers}; nnU-Net wants 1, 2, 3, ...")
    if _TAKEN & set(names) or len(set(names)) < len(names):
        reasons.append(
            f"its classes are named {names}; nnU-Net needs names that differ, also from background and ignore"
        )
    return reasons


def nnunet_dataset(plan: Plan) -> dict[str, Any]:
    """What `dataset.json` holds."""
    return {
        "name": plan.name,
        "description": f"exported by medseg {version('medseg')} from the bundle {plan.name}",
        "channel_names": {str(number): channel.name for number, channel in enumerate(plan.channels)},
        "labels": {"background": 0, **{name: number for number, name in plan.labels.classes.items()}},
        # for medseg, which brings a scan to the unit; nnU-Net does not look at it
        "medseg": {"channels": [{"modality": channel.modality, "units": channel.units} for channel in plan.channels]},
        "numTraining": 0,
        "file_ending": ".nii.gz",
    }


def nnunet_plans(plan: Plan) -> dict[str, Any]:
    """What `plans.json` holds, for a plan that nnU-Net can run.

    Axes stay in the order of the plan's grid: `transpose_forward` leads there from nnU-Net's own.
    """
    forward = [_FILE_ORDER.index(letter) for letter in plan.orientation]
    spacing = list(plan.spacing_mm or (1.0, 1.0, 1.0))
    return {
        "dataset_name": f"Dataset000_{plan.name}",
        "plans_name": "medsegPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": list(plan.inference.patch_size),
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": forward,
        "transpose_backward": [forward.index(axis) for axis in range(3)],
        "experiment_planner_used": "medseg",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(number): _intensities(channel.intensity) for number, channel in enumerate(plan.channels)
        },
        "configurations": {_CONFIGURATION: _configuration(plan, spacing)},
    }


def _scheme(intensity: IntensityPlan) -> str:
    return "CTNormalization" if intensity.standardize == "none" else "ZScoreNormalization"


def _is_changed_after(intensity: IntensityPlan) -> bool:
    """Whether standardized intensities are then clipped, shifted or scaled, which nnU-Net does not."""
    unchanged = IntensityPlan(low=-UNCLIPPED_STD, high=UNCLIPPED_STD, standardize=intensity.standardize)
    return intensity.standardize != "none" and intensity != unchanged


def _intensities(intensity: IntensityPlan) -> dict[str, float]:
    """Numbers of CTNormalization; those that it does not look at are the nearest that is known."""
    return {
        "min": intensity.low,
        "max": intensity.high,
        "mean": intensity.shift,
        "median": intensity.shift,
        "std": intensity.scale,
        "percentile_00_5": intensity.low,
        "percentile_99_5": intensity.high,
    }


def _configuration(plan: Plan, spacing: list[float]) -> dict[str, Any]:
    resampling: dict[str, Any] = {}
    for what, is_seg in (("data", False), ("seg", True), ("probabilities", False)):
        resampling[f"resampling_fn_{what}"] = _SPLINES if plan.spacing_mm is not None else _OWN_GRID
        # linear along all axes, as medseg resamples
        linear = {"is_seg": is_seg, "order": 1, "order_z": 0, "force_separate_z": False}
        resampling[f"resampling_fn_{what}_kwargs"] = linear if plan.spacing_mm is not None else {}
    n_outputs = plan.labels.highest + 1
    return {
        "data_identifier": f"medsegPlans_{_CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": plan.training.batch_size,
        "patch_size": list(plan.inference.patch_size),
        "median_image_size_in_voxels": [float(side) for side in plan.inference.patch_size],
        "spacing": spacing,
        "normalization_schemes": [_scheme(channel.intensity) for channel in plan.channels],
        "use_mask_for_norm": [channel.intensity.standardize == "nonzero" for channel in plan.channels],
        **resampling,
        "architecture": _architecture(nnunet_architecture(plan.network, len(plan.channels), n_outputs)),
        "batch_dice": False,
    }


def _architecture(architecture: NnunetArchitecture) -> dict[str, Any]:
    kind, norm = _CLASSES[architecture.kind], f"{architecture.norm.capitalize()}Norm3d"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": len(architecture.features),
            "features_per_stage": list(architecture.features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [list(kernel) for kernel in architecture.kernels],
            "strides": [list(stride) for stride in architecture.strides],
            "n_conv_per_stage" if architecture.kind == "plain" else "n_blocks_per_stage": list(
                architecture.encoder_blocks
            ),
            "n_conv_per_stage_decoder": list(architecture.decoder_blocks),
            "conv_bias": architecture.has_bias,
            "norm_op": f"torch.nn.modules.{architecture.norm}norm.{norm}",
            "norm_op_kwargs": dict(architecture.norm_arguments),
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": f"torch.nn.{architecture.activation}",
            "nonlin_kwargs": dict(architecture.activation_arguments),
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _with_all_heads(weights: Mapping[str, torch.Tensor], plan: Plan) -> dict[str, torch.Tensor]:
    """The weights with heads of zeros for the lower resolutions: nnU-Net loads them, and needs none to predict."""
    filters, n_outputs = plan.network.filters, plan.labels.highest + 1
    heads = {}
    for number in range(len(filters) - 2):
        n_features = filters[-number - 2]
        heads[f"decoder.seg_layers.{number}.weight"] = torch.zeros(n_outputs, n_features, 1, 1, 1)
        heads[f"decoder.seg_layers.{number}.bias"] = torch.zeros(n_outputs)
    return {**weights, **heads}
