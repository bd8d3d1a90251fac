"""The parts of a bundle that train and evaluate its network under `monai.bundle run`, by MONAI's own classes.

Both read scans from `dataset_dir/images` and label maps of the same names from `dataset_dir/labels`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg.core.plan import Plan
from medseg.models.config_parts import IMPORTS, NETWORK_KEYS, decision_step

__all__ = ["LOGGING", "SEGMENT_CONFIG", "evaluate_config", "train_config"]

LOGGING = """\
[loggers]
keys=root, highdicom

[handlers]
keys=consoleHandler

[formatters]
keys=fullFormatter

[logger_root]
level=INFO
handlers=consoleHandler

[logger_highdicom]
level=WARNING
handlers=
qualname=highdicom

[handler_consoleHandler]
class=StreamHandler
level=INFO
formatter=fullFormatter
args=(sys.stdout,)

[formatter_fullFormatter]
format=%(asctime)s - %(name)s - %(levelname)s - %(message)s
"""

SEGMENT_CONFIG: dict[str, Any] = {
    "imports": [*IMPORTS, "$import medseg.pipeline as pipeline"],
    "run": ["$pipeline.segment_folder(@bundle_root, @dataset_dir, @output_dir)"],
}
"""What `configs/segment.json` holds, laid over inference.json: medseg's whole way from scans to lesion tables."""

_LOADED = {"_target_": "LoadImaged", "reader": "NibabelReader", "ensure_channel_first": True}
_PAIRS = "[{'image': i, 'label': l} for i, l in zip(@images, @labels)]"


def train_config(plan: Plan, inference: Mapping[str, Any]) -> dict[str, Any]:
    """What `configs/train.json` holds: the bundle's network trained on, from its weights where they are there.

    Dice and cross entropy on windows, half of them on a lesion, by AdamW; the mean Dice of the last tenth of the cases
    (at least one) decides which weights are kept, as `models/model_tuned.pt`. Where the network is a mean of several,
    they are trained together; instance heads of a branch of their own are not trained.

    Parameters
    ----------
    plan
        The model's plan.
    inference
        What its `inference.json` holds, see `medseg.models.export.inference_config`.
    """
    shared = {key: inference[key] for key in ("bundle_root", "device", "network", "patch_size", "divisor")}
    shared |= {key: inference[key] for key in NETWORK_KEYS if key in inference}
    return {
        "imports": [*inference["imports"], "$import os"],
        **shared,
        "ckpt_dir": "$@bundle_root + '/models'",
        **_pairs(),
        "n_val": "$max(1, len(@images) // 10)",
        "val_interval": 1,
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "params": "$@network.parameters()",
            "lr": plan.training.learning_rate / 10,
            "weight_decay": plan.training.weight_decay,
        },
        "loss": {
            "_target_": "DiceCELoss",
            "to_onehot_y": True,
            "softmax": True,
            "include_background": False,
            "smooth_nr": 1.0,
            "smooth_dr": 1.0,
        },
        "train": _train(plan, inference),
        "validate": _validate(plan, inference),
        "initialize": [f"$monai.utils.set_determinism(seed={plan.training.seed})"],
        "run": ["$@train#trainer.run()"],
    }


def evaluate_config(plan: Plan, inference: Mapping[str, Any]) -> dict[str, Any]:
    """What `configs/evaluate.json` holds, laid over inference.json: mean Dice of each case in `metrics.csv`.

    Predictions go back to the scans' own grids first, where the label maps lie.
    """
    return {
        **_pairs(),
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [{**_LOADED, "keys": "label"}, *_steps(inference, "preprocessing")],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": f"${_PAIRS}",
            "transform": "@preprocessing",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                *(step for step in _steps(inference, "postprocessing") if step["_target_"] != "SaveImaged"),
                *_one_hot(plan),
            ],
        },
        "key_metric": {"val_mean_dice": _dice()},
        "handlers": [
            *inference["handlers"],
            {
                "_target_": "MetricsSaver",
                "save_dir": "@output_dir",
                "metrics": ["val_mean_dice"],
                "metric_details": ["val_mean_dice"],
                "batch_transform": "$lambda batch: [sample['image'].meta for sample in batch]",
            },
        ],
        "evaluator": {**inference["evaluator"], "key_val_metric": "@key_metric"},
    }


def _pairs() -> dict[str, Any]:
    return {
        "dataset_dir": "$@bundle_root + '/data'",
        "images": "$list(sorted(glob.glob(@dataset_dir + '/images/*.nii.gz')))",
        "labels": "$[i.replace('/images/', '/labels/') for i in @images]",
    }


def _steps(inference: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
    return list(inference[part]["transforms"])


def _train(plan: Plan, inference: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "preprocessing": {"_target_": "Compose", "transforms": [*_with_label(inference), *_sampling()]},
        "dataset": {
            "_target_": "CacheDataset",
            "data": "$@train#pairs",
            "transform": "@train#preprocessing",
            "num_workers": 0,
            "progress": False,
        },
        "pairs": f"${_PAIRS}[:-@n_val] or {_PAIRS}",
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@train#dataset",
            "batch_size": plan.training.batch_size,
            "shuffle": True,
            "num_workers": 0,
        },
        "inferer": _whole_window(plan),
        "postprocessing": _classes(plan),
        "key_metric": {"train_mean_dice": _dice()},
        "handlers": _train_handlers(),
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": 100,
            "device": "@device",
            "train_data_loader": "@train#dataloader",
            "network": "@network",
            "optimizer": "@optimizer",
            "loss_function": "@loss",
            "inferer": "@train#inferer",
            "postprocessing": "@train#postprocessing",
            "key_train_metric": "@train#key_metric",
            "train_handlers": "@train#handlers",
        },
    }


def _sampling() -> list[dict[str, Any]]:
    """A window of each scan, on a lesion or beside one, mirrored by chance."""
    window = "@patch_size"
    cut = {
        "_target_": "RandCropByPosNegLabeld",
        "keys": ["image", "label"],
        "label_key": "label",
        "spatial_size": window,
        "pos": 1,
        "neg": 1,
        "num_samples": 1,
        "allow_smaller": True,
    }
    padded = {"_target_": "SpatialPadd", "keys": ["image", "label"], "spatial_size": window}
    flips = [
        {"_target_": "RandFlipd", "keys": ["image", "label"], "prob": 0.5, "spatial_axis": axis} for axis in range(3)
    ]
    return [padded, cut, *flips]


def _train_handlers() -> list[dict[str, Any]]:
    loader = {
        "_target_": "CheckpointLoader",
        "_disabled_": "$not os.path.exists(@ckpt_dir + '/model.pt')",
        "load_path": "$@ckpt_dir + '/model.pt'",
        "load_dict": {"model": "@network"},
        "map_location": "@device",
    }
    return [
        loader,
        {
            "_target_": "ValidationHandler",
            "validator": "@validate#evaluator",
            "epoch_level": True,
            "interval": "@val_interval",
        },
        {
            "_target_": "StatsHandler",
            "tag_name": "train_loss",
            "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
        },
    ]


def _whole_window(plan: Plan) -> Any:
    """The network on a window; of a U-Net with instance heads only the logits are trained on."""
    if plan.network.instance_heads and plan.network.kind == "unet":
        return f"$lambda inputs, network, *args, **kwargs: network(inputs)[:, :{plan.labels.highest + 1}]"
    return {"_target_": "SimpleInferer"}


def _validate(plan: Plan, inference: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "preprocessing": {"_target_": "Compose", "transforms": _with_label(inference)},
        "dataset": {
            "_target_": "CacheDataset",
            "data": f"${_PAIRS}[-@n_val:]",
            "transform": "@validate#preprocessing",
            "num_workers": 0,
            "progress": False,
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset", "batch_size": 1, "num_workers": 0},
        "inferer": inference["inferer"],
        "postprocessing": _classes(plan),
        "key_metric": {"val_mean_dice": _dice()},
        "handlers": [
            {"_target_": "StatsHandler", "iteration_log": False},
            {
                "_target_": "CheckpointSaver",
                "save_dir": "@ckpt_dir",
                "save_dict": {"model": "@network"},
                "save_key_metric": True,
                "key_metric_filename": "model_tuned.pt",
            },
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@validate#dataloader",
            "network": "@network",
            "inferer": "@validate#inferer",
            "postprocessing": "@validate#postprocessing",
            "key_val_metric": "@validate#key_metric",
            "val_handlers": "@validate#handlers",
        },
    }


def _with_label(inference: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of inference for image and label alike; intensities are the image's alone, labels go to the nearest."""
    steps = []
    for step in _steps(inference, "preprocessing"):
        both = {**step, "keys": ["image", "label"]}
        if step["_target_"] in ("LoadImaged", "EnsureChannelFirstd", "Orientationd"):
            steps.append(both)
        elif step["_target_"] == "Spacingd":
            steps.append({**both, "mode": ["bilinear", "nearest"]})
        else:
            steps.append(step)
    return steps


def _classes(plan: Plan) -> dict[str, Any]:
    steps: Sequence[dict[str, Any]] = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        decision_step(plan),
        *_one_hot(plan),
    ]
    return {"_target_": "Compose", "transforms": list(steps)}


def _one_hot(plan: Plan) -> list[dict[str, Any]]:
    return [{"_target_": "AsDiscreted", "keys": ["pred", "label"], "to_onehot": plan.labels.highest + 1}]


def _dice() -> dict[str, Any]:
    return {
        "_target_": "MeanDice",
        "include_background": False,
        "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
    }
