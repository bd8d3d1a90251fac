"""Write a trained network as a MONAI bundle.

The bundle follows MONAI's bundle specification and runs with `python -m monai.bundle run` without medseg; medseg
itself reads only its plan and its weights. See docs/reference/bundle.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from medseg.core.plan import IntensityPlan, Plan
from medseg.core.recipe import smallest_divisor
from medseg.io.atomic import atomic_folder
from medseg.io.json_files import write_json
from medseg.models.bundle import (
    EVALUATE_PATH,
    HEADS_PATH,
    INFERENCE_PATH,
    LESIONS_PATH,
    LOGGING_PATH,
    METADATA_PATH,
    MODEL_CARD_PATH,
    PLAN_PATH,
    SEGMENT_PATH,
    TRAIN_PATH,
    WEIGHTS_PATH,
)
from medseg.models.config_parts import IMPORTS, decision_step, sliding_window_inferer
from medseg.models.lesions_config import lesions_config
from medseg.models.nnunet_config import NNUNET_IMPORTS, NNUNET_MEMBER, nnunet_parts
from medseg.models.workflow_configs import LOGGING, SEGMENT_CONFIG, evaluate_config, train_config
from medseg.networks.build import monai_network
from medseg.networks.heads import HEAD_PREFIX

__all__ = ["inference_config", "metadata", "workflow_files", "write_bundle"]

_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_LICENSE_TEXT = """The configuration and weights in this bundle are licensed under the Apache License, Version 2.0
(http://www.apache.org/licenses/LICENSE-2.0). They come WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND.
For research use only: this is no medical device.

The weights were trained on:
{data_source}
"""


def write_bundle(
    folder: Path,
    plan: Plan,
    weights: Mapping[str, torch.Tensor],
    *,
    description: str,
    data_source: str,
    n_cases: int,
    model_card: str,
    eval_metrics: Mapping[str, float] | None = None,
    json_files: Mapping[Path, Any] | None = None,
) -> None:
    """Write a bundle, all of it or nothing.

    Parameters
    ----------
    folder
        The bundle's folder.
    plan, weights
        The model: its plan, and its state dict.
    description, data_source, n_cases
        For the metadata: what it does, what it was trained on, on how many cases.
    model_card
        Markdown text of `docs/README.md`.
    eval_metrics
        For the metadata, by name.
    json_files
        Further JSON files, by path within the bundle.

    Raises
    ------
    OutputNotWritable
        If the folder cannot be written.
    """
    files = {
        PLAN_PATH: plan.model_dump(mode="json"),
        METADATA_PATH: metadata(plan, description, data_source, n_cases, eval_metrics),
        **workflow_files(plan),
        **(json_files or {}),
    }
    heads = {name for name in weights if HEAD_PREFIX in name}
    with atomic_folder(folder) as draft:
        for name, value in files.items():
            write_json(value, draft / name)
        _write_text(draft / "LICENSE", _LICENSE_TEXT.format(data_source=data_source))
        _write_text(draft / MODEL_CARD_PATH, model_card)
        _write_text(draft / LOGGING_PATH, LOGGING)
        (draft / WEIGHTS_PATH).parent.mkdir(parents=True, exist_ok=True)
        for path, names in ((WEIGHTS_PATH, weights.keys() - heads), (HEADS_PATH, heads)):
            if names:
                kept = {name: tensor.contiguous() for name, tensor in weights.items() if name in names}
                torch.save(kept, draft / path)


def workflow_files(plan: Plan) -> dict[Path, Any]:
    """The configurations for `monai.bundle run`, by path within the bundle."""
    inference = inference_config(plan)
    return {
        INFERENCE_PATH: inference,
        LESIONS_PATH: lesions_config(plan),
        SEGMENT_PATH: SEGMENT_CONFIG,
        EVALUATE_PATH: evaluate_config(plan, inference),
        TRAIN_PATH: train_config(plan, inference),
    }


def metadata(
    plan: Plan,
    description: str,
    data_source: str,
    n_cases: int,
    eval_metrics: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What `configs/metadata.json` holds, after MONAI's schema of 2024-07-25.

    Required and optional packages are both listed: older tools read one key, the schema wants the other.
    """
    optional = {"nibabel": version("nibabel"), "pytorch-ignite": "0.5.2"}
    return {
        "schema": _SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": optional,
        "optional_packages_version": optional,
        "name": plan.name,
        "task": "Lesion segmentation",
        "description": description,
        "authors": "The medseg authors",
        "copyright": "Copyright (c) the medseg authors",
        "data_source": data_source,
        "data_type": "nifti",
        "intended_use": "Research use only. This is no medical device.",
        "training_cases": n_cases,
        "eval_metrics": dict(eval_metrics or {}),
        "network_data_format": {
            "inputs": {"image": _image_format(plan)},
            "outputs": {"pred": _prediction_format(plan)},
        },
    }


def inference_config(plan: Plan) -> dict[str, Any]:
    """What `configs/inference.json` holds: the plan in the words of MONAI's bundle language."""
    return {
        "imports": [*IMPORTS, *(NNUNET_IMPORTS if plan.network.is_nnunet else ())],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": "$@bundle_root + '/data'",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        **_network(plan),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": _preprocessing(plan)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "patch_size": list(plan.inference.patch_size),
        "divisor": list(smallest_divisor(plan.network)),
        "inferer": sliding_window_inferer(plan) + _only_logits(plan),
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing(plan)},
        "handlers": _handlers(),
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "initialize": ["$torch.manual_seed(0)"],
        "run": ["$@evaluator.run()"],
    }


def _handlers() -> list[dict[str, Any]]:
    return [
        {
            "_target_": "CheckpointLoader",
            "load_path": f"$@bundle_root + '/{WEIGHTS_PATH.as_posix()}'",
            "load_dict": {"model": "@network"},
            "map_location": "@device",
        },
        {"_target_": "StatsHandler", "iteration_log": False},
    ]


def _network(plan: Plan) -> dict[str, Any]:
    """The network; several members as an expression, because MONAI has no module that averages."""
    parts = nnunet_parts(plan)
    members: list[Any] = [NNUNET_MEMBER if parts else monai_network(plan) for _ in range(plan.network.members)]
    if len(members) == 1:
        return {**parts, "network_def": members[0]}
    mean = "lambda self, image: sum(member(image) for member in self) / len(self)"
    whole = "{'is_leaf_module': lambda self, module, name: True}"
    return {
        **parts,
        "members": members,
        "mean": f"$type('MeanOfNetworks', (torch.nn.ModuleList,), {{'forward': {mean}}})(@members)",
        # as a graph with a source of its own (a copy's is found by TorchScript); the weights keep their names
        "graph": f"$copy.deepcopy(type('Whole', (torch.fx.Tracer,), {whole})().trace(@mean))",
        "network_def": "$torch.fx.GraphModule(@mean, @graph)",
    }


def _only_logits(plan: Plan) -> str:
    """The instance heads of a U-Net, its last channels, are cut off."""
    return f"[:, :{plan.labels.highest + 1}]" if _is_joined(plan) else ""


def _is_joined(plan: Plan) -> bool:
    """Whether the network gives instance heads as channels behind the logits."""
    return plan.network.instance_heads and plan.network.kind == "unet"


def _preprocessing(plan: Plan) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},  # a step of its own: MONAI Deploy leaves the loader out
        {
            "_target_": "Orientationd",
            "keys": "image",
            "axcodes": plan.orientation,
            "labels": [["L", "R"], ["P", "A"], ["I", "S"]],
        },
    ]
    if plan.spacing_mm is not None:
        steps.append(
            {
                "_target_": "Spacingd",
                "keys": "image",
                "pixdim": list(plan.spacing_mm),
                "mode": "bilinear",
                "padding_mode": "border",
                "dtype": "$torch.float32",
            }
        )
    return [*steps, *_intensity_steps(plan)]


def _intensity_steps(plan: Plan) -> list[dict[str, Any]]:
    """MONAI's own transforms for one channel; several channels with their own mappings need medseg's."""
    if len(plan.channels) > 1:
        plans = [channel.intensity.model_dump(mode="json") for channel in plan.channels]
        return [{"_target_": "medseg.transforms.preprocess.MapIntensityd", "keys": "image", "plans": plans}]
    intensity: IntensityPlan = plan.channels[0].intensity
    window = {"a_min": intensity.low, "a_max": intensity.high, "b_min": intensity.low, "b_max": intensity.high}
    steps: list[dict[str, Any]] = []
    if intensity.standardize != "none":
        own = {"nonzero": intensity.standardize == "nonzero", "channel_wise": True}
        steps.append({"_target_": "NormalizeIntensityd", "keys": "image", **own})
    steps.append({"_target_": "ScaleIntensityRanged", "keys": "image", **window, "clip": True})
    if intensity.transform == "sqrt":
        steps.append({"_target_": "Lambdad", "keys": "image", "func": "$torch.sqrt"})
    if (intensity.shift, intensity.scale) != (0.0, 1.0):
        steps.append(
            {
                "_target_": "NormalizeIntensityd",
                "keys": "image",
                "subtrahend": intensity.shift,
                "divisor": intensity.scale,
            }
        )
    return steps


def _postprocessing(plan: Plan) -> list[dict[str, Any]]:
    return [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
            "to_tensor": True,
        },
        decision_step(plan),
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_postfix": "semantic",
            "output_dtype": "$torch.uint8",
            "resample": False,
        },
    ]


def _image_format(plan: Plan) -> dict[str, Any]:
    intensities = [channel.intensity for channel in plan.channels]
    root = [0.5 if intensity.transform == "sqrt" else 1.0 for intensity in intensities]
    ends = [
        (value**power - intensity.shift) / intensity.scale
        for intensity, power in zip(intensities, root, strict=True)
        for value in (intensity.low, intensity.high)
    ]
    return {
        "type": "image",
        "format": "intensity",
        "modality": ", ".join(channel.modality for channel in plan.channels),
        "num_channels": len(plan.channels),
        "spatial_shape": [f"{divisor}*n" for divisor in smallest_divisor(plan.network)],
        "dtype": "float32",
        "value_range": [min(ends), max(ends)],
        "is_patch_data": True,
        "channel_def": {str(number): channel.name for number, channel in enumerate(plan.channels)},
    }


def _prediction_format(plan: Plan) -> dict[str, Any]:
    """The logits; behind them, for a U-Net with instance heads, center and offsets."""
    names = {0: "background", **plan.labels.classes}
    n_classes = plan.labels.highest + 1
    if _is_joined(plan):
        names |= {n_classes + n: name for n, name in enumerate(("center", "offset i mm", "offset j mm", "offset k mm"))}
    return {
        "type": "image",
        "format": "segmentation",
        "num_channels": n_classes + (4 if _is_joined(plan) else 0),
        "spatial_shape": [f"{divisor}*n" for divisor in smallest_divisor(plan.network)],
        "dtype": "float32",
        "value_range": [],  # logits and millimeters have no bounds
        "is_patch_data": True,
        "channel_def": {str(number): name for number, name in names.items()},
    }


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
