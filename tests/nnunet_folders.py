"""nnU-Net model folders for tests: tiny networks with fresh weights, in nnU-Net's own layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.models.nnunet_plans import architecture_of, configuration_of
from medseg.networks.nnunet import NnunetNetwork

SPLINES = "resample_data_or_seg_to_shape"


def architecture(n: int = 3, kind: str = "PlainConvUNet", **changes: Any) -> dict[str, Any]:
    """The `architecture` of a configuration in `n` dimensions: three stages, four features."""
    blocks = "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"
    arguments: dict[str, Any] = {
        "n_stages": 3,
        "features_per_stage": [4, 6, 6],
        "conv_op": f"torch.nn.modules.conv.Conv{n}d",
        "kernel_sizes": [[3] * n] * 3,
        "strides": [[1] * n, [2] * n, [2] * n],
        blocks: [1, 2, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{n}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    arguments.update(changes)
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(n: int = 3, **changes: Any) -> dict[str, Any]:
    """One configuration of plans.json."""
    kwargs = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    entries: dict[str, Any] = {
        "data_identifier": "nnUNetPlans_test",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16] * n,
        "spacing": [2.0] * n,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": SPLINES,
        "resampling_fn_seg": SPLINES,
        "resampling_fn_data_kwargs": kwargs,
        "resampling_fn_seg_kwargs": {**kwargs, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": SPLINES,
        "resampling_fn_probabilities_kwargs": {**kwargs, "order": 1},
        "architecture": architecture(n),
    }
    entries.update(changes)
    return entries


def plans(**changes: Any) -> dict[str, Any]:
    """plans.json with 2d, 3d_fullres, and a 3d_lowres that inherits from it, and a cascade."""
    entries: dict[str, Any] = {
        "dataset_name": "Dataset999_Test",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 100.0, "std": 50.0, "percentile_00_5": -50.0, "percentile_99_5": 300.0}
        },
        "configurations": {
            "2d": configuration(2),
            "3d_fullres": configuration(3),
            "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [3.0, 3.0, 3.0]},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
    }
    entries.update(changes)
    return entries


def dataset(**changes: Any) -> dict[str, Any]:
    """dataset.json of one channel and one class."""
    return {"channel_names": {"0": "CT"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz", **changes}


def model_folder(
    root: Path,
    name: str = "3d_fullres",
    *,
    folds: Sequence[int | str] = (0,),
    plans_json: dict[str, Any] | None = None,
    dataset_json: dict[str, Any] | None = None,
    sizes: tuple[int, int] = (1, 2),
    mirror_axes: tuple[int, ...] | None = (0, 1, 2),
) -> Path:
    """Write a model folder whose network has `sizes` channels in and logits out; returns it."""
    folder = root / f"nnUNetTrainer__nnUNetPlans__{name}"
    folder.mkdir(parents=True)
    described = plans_json or plans()
    (folder / "plans.json").write_text(json.dumps(described))
    (folder / "dataset.json").write_text(json.dumps(dataset_json or dataset()))
    network = architecture_of(configuration_of(described, name, folder), *sizes, folder)
    for fold in folds:
        torch.manual_seed(len(str(fold)) if fold == "all" else int(fold))
        write_checkpoint(folder / f"fold_{fold}", NnunetNetwork(network).state_dict(), name, mirror_axes)
    return folder


def write_checkpoint(
    folder: Path, weights: dict[str, torch.Tensor], name: str, mirror_axes: tuple[int, ...] | None
) -> None:
    """A checkpoint as nnU-Net writes it: second names, optimizer, a log of numpy numbers."""
    doubled = dict(weights)
    for key, tensor in weights.items():
        if ".conv." in key:
            doubled[key.replace(".conv.", ".all_modules.0.")] = tensor
        if key.startswith("encoder."):
            doubled[f"decoder.{key}"] = tensor
    folder.mkdir(parents=True)
    content = {
        "network_weights": doubled,
        "optimizer_state": {"momentum": torch.zeros(10)},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)], "dice": [[np.float32(0.5)]], "epochs": np.int64(3)},
        "_best_ema": np.float64(0.5),
        "current_epoch": 3,
        "init_args": {"configuration": name, "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": mirror_axes,
    }
    torch.save(content, folder / "checkpoint_final.pth")
