"""MONAI bundles as the public zoo has them, with random weights: what parity and speed are measured on.

    python benchmarks/make_bundles.py OUT [--only NAME ...]

Each runs with `python -m monai.bundle run` (see `benchmarks/accuracy_bundles.py`). Weights are random but
not as they are initialized: the last layer is scaled so that every class wins somewhere, or equal labels would say
nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from monai.networks import nets

SEED = 20240725
BUNDLES = ("spleen", "whole_body", "pediatric", "btcv", "brats", "template", "deepedit", "prostate", "dints")


def spleen() -> dict[str, Any]:
    """UNet; probabilities are brought back linearly, then decided."""
    return {
        "network": {
            "_target_": "UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 2,
            "channels": [16, 32, 64, 128, 256],
            "strides": [2, 2, 2, 2],
            "num_res_units": 2,
            "norm": "batch",
        },
        "pre": [*load(), orient("RAS"), respace(1.5, 1.5, 2.0), window(-57, 164), ensure_type()],
        "inferer": sliding([96, 96, 96], 0.5, sw_batch_size=4),
        "post": [activate("softmax"), invert(nearest=False), argmax(), save()],
        "names": ["background", "spleen"],
    }


def whole_body() -> dict[str, Any]:
    """SegResNet with 105 classes; decided on the network's grid, labels brought back by nearest neighbor."""
    return {
        "extra": {"displayable_configs": {"highres": True, "sw_overlap": 0.25, "sw_batch_size": 1}},
        "network": {
            "_target_": "SegResNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 105,
            "init_filters": 32,
            "blocks_down": [1, 2, 2, 4],
            "blocks_up": [1, 1, 1],
            "dropout_prob": 0.2,
        },
        "pre": [
            {"_target_": "LoadImaged", "keys": "@image_key"},
            ensure_type(),
            {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
            orient("RAS"),
            {
                "_target_": "Spacingd",
                "keys": "@image_key",
                "pixdim": "$[1.5, 1.5, 1.5] if @displayable_configs#highres else [3.0, 3.0, 3.0]",
                "mode": "bilinear",
            },
            {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True},
            {"_target_": "ScaleIntensityd", "keys": "@image_key", "minv": -1.0, "maxv": 1.0},
        ],
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [96, 96, 96],
            "sw_batch_size": "@displayable_configs#sw_batch_size",
            "overlap": "@displayable_configs#sw_overlap",
            "padding_mode": "replicate",
            "mode": "gaussian",
            "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        },
        "post": [activate("softmax"), argmax(), invert(nearest=True), save()],
        "names": ["background", *(f"structure_{number}" for number in range(1, 105))],
    }


def pediatric() -> dict[str, Any]:
    """DynUNet behind a crop to the foreground; the file is YAML in the zoo."""
    return {
        "extra": {"spatial_size": [96, 96, 96], "spatial_dims": "$len(@spatial_size)"},
        "network": dynunet(1, 4) | {"spatial_dims": "@spatial_dims", "_target_": "monai.networks.nets.DynUNet"},
        "pre": [
            *load(),
            orient("RAS"),
            respace(1.5, 1.5, 3.0) | {"keys": ["@image_key"], "mode": ["bilinear"]},
            window(-250, 400),
            {
                "_target_": "CropForegroundd",
                "keys": ["@image_key"],
                "source_key": "@image_key",
                "mode": ["minimum"],
            },
            ensure_type(),
            {"_target_": "CastToTyped", "keys": "@image_key", "dtype": "$torch.float32"},
        ],
        "inferer": sliding([96, 96, 96], 0.75, sw_batch_size=4),
        "post": [activate("softmax"), invert(nearest=False), argmax(), save()],
        "names": ["background", "liver", "spleen", "pancreas"],
    }


def btcv() -> dict[str, Any]:
    """SwinUNETR with 14 classes. The zoo's `img_size`, which MONAI takes no longer, is left to `--drift`."""
    return {
        "network": {
            "_target_": "SwinUNETR",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 14,
            "feature_size": 24,
            "use_checkpoint": False,
        },
        "pre": [*load(), orient("RAS"), respace(1.5, 1.5, 2.0), window(-175, 250), ensure_type()],
        "inferer": sliding([96, 96, 96], 0.5, sw_batch_size=4),
        "post": [activate("softmax"), invert(nearest=False), argmax(), save()],
        "names": ["background", *(f"organ {number}" for number in range(1, 14))],
    }


def brats() -> dict[str, Any]:
    """SegResNet from four images to three nested regions, on the scan's own grid."""
    regions = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
    return {
        "network": {
            "_target_": "SegResNet",
            "blocks_down": [1, 2, 2, 4],
            "blocks_up": [1, 1, 1],
            "init_filters": 16,
            "in_channels": 4,
            "out_channels": 3,
            "dropout_prob": 0.2,
        },
        "pre": [
            {"_target_": "LoadImaged", "keys": "@image_key", "image_only": False},
            {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True, "channel_wise": True},
        ],
        "inferer": sliding([240, 240, 160], 0.5, sw_batch_size=1),
        "post": [
            activate("sigmoid"),
            invert(nearest=False),
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
            {"_target_": "Lambdad", "keys": "pred", "func": regions},
            save() | {"resample": False},
        ],
        "names": ["Tumor core", "Whole tumor", "Enhancing tumor"],
        "channels": ["T1c", "T1", "T2", "FLAIR"],
        "modality": "MR",
    }


def template() -> dict[str, Any]:
    """UNet over the whole image at once, without coming back: the image keeps its grid."""
    return {
        "network": {
            "_target_": "UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 4,
            "channels": [8, 16, 32, 64],
            "strides": [2, 2, 2],
            "num_res_units": 2,
        },
        "pre": [*load(), {"_target_": "ScaleIntensityd", "keys": "@image_key"}],
        "inferer": {"_target_": "SimpleInferer"},
        "post": [activate("softmax"), argmax(), save() | {"resample": False}],
        "names": ["background", "category 1", "category 2", "category 3"],
    }


def deepedit() -> dict[str, Any]:
    """DynUNet over an image resized to 128 voxels a side; resized back by the same rule."""
    return {
        "network": dynunet(1, 2),
        "pre": [
            *load(),
            orient("RAS"),
            window(-175, 250),
            {"_target_": "Resized", "keys": "@image_key", "spatial_size": [128, 128, 128], "mode": "area"},
            ensure_type(),
        ],
        "inferer": {"_target_": "SimpleInferer"},
        "post": [
            {"_target_": "EnsureTyped", "keys": "pred"},
            activate("softmax"),
            invert(nearest=False),
            argmax(),
            save(),
        ],
        "names": ["background", "spleen"],
    }


def prostate() -> dict[str, Any]:
    """UNet whose class numbers are interpolated linearly on the way back, as the zoo's are."""
    return {
        "network": {
            "_target_": "UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 3,
            "channels": [8, 16, 32, 64, 128],
            "strides": [2, 2, 2, 2],
            "num_res_units": 4,
            "norm": "batch",
            "act": "prelu",
            "dropout": 0.15,
        },
        "pre": [
            *load(),
            orient("RAS"),
            respace(1.0, 1.0, 1.0),
            {"_target_": "ScaleIntensityd", "keys": "@image_key", "minv": 0, "maxv": 1},
            {"_target_": "NormalizeIntensityd", "keys": "@image_key"},
            ensure_type(),
        ],
        "inferer": sliding([96, 96, 96], 0.5, sw_batch_size=4),
        "post": [
            argmax(),
            {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1, 2]},
            invert(nearest=False),
            save() | {"resample": False},
        ],
        "names": ["background", "central gland", "peripheral zone"],
        "modality": "MR",
    }


def dints() -> dict[str, Any]:
    """DiNTS, whose search code is numpy in a pickle and whose devices are literal, as the zoo's are."""
    space = {
        "_target_": "monai.networks.nets.TopologyInstance",
        "channel_mul": 0.25,
        "num_blocks": 6,
        "num_depths": 3,
        "use_downsample": True,
        "arch_code": ["$@arch_ckpt['arch_code_a']", "$@arch_ckpt['arch_code_c']"],
        "device": "$torch.device('cpu')",
    }
    return {
        "extra": {
            "arch_ckpt_path": "$@bundle_root + '/models/search_code.pt'",
            "arch_ckpt": "$torch.load(@arch_ckpt_path, map_location=torch.device('cpu'), weights_only=False)",
            "dints_space": space,
        },
        "network": {
            "_target_": "monai.networks.nets.DiNTS",
            "dints_space": "@dints_space",
            "in_channels": 1,
            "num_classes": 3,
            "use_downsample": True,
            "node_a": "$torch.from_numpy(@arch_ckpt['node_a'])",
        },
        "pre": [*load(), orient("RAS"), respace(1, 1, 1), window(-87, 199), ensure_type()],
        "inferer": sliding([96, 96, 96], 0.625, sw_batch_size=4),
        "post": [activate("softmax"), invert(nearest=False), argmax(), save()],
        "names": ["background", "pancreas", "pancreatic tumor"],
    }


def dynunet(n_inputs: int, n_outputs: int) -> dict[str, Any]:
    """The DynUNet of two bundles of the zoo, with fewer filters."""
    return {
        "_target_": "DynUNet",
        "spatial_dims": 3,
        "in_channels": n_inputs,
        "out_channels": n_outputs,
        "kernel_size": [3, 3, 3, 3, 3, 3],
        "strides": [1, 2, 2, 2, 2, [2, 2, 1]],
        "upsample_kernel_size": [2, 2, 2, 2, [2, 2, 1]],
        "filters": [16, 32, 64, 96, 128, 160],
        "norm_name": "instance",
        "deep_supervision": False,
        "res_block": True,
    }


def load() -> list[dict[str, Any]]:
    """Reading of one file with a channel in front."""
    return [
        {"_target_": "LoadImaged", "keys": "@image_key"},
        {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
    ]


def orient(axcodes: str) -> dict[str, Any]:
    """Orientation."""
    return {"_target_": "Orientationd", "keys": "@image_key", "axcodes": axcodes}


def respace(*pixdim: float) -> dict[str, Any]:
    """Spacing with its defaults: linear, in float64."""
    return {"_target_": "Spacingd", "keys": "@image_key", "pixdim": list(pixdim), "mode": "bilinear"}


def window(low: float, high: float) -> dict[str, Any]:
    """An intensity window mapped to 0..1 and clipped."""
    limits = {"a_min": low, "a_max": high, "b_min": 0.0, "b_max": 1.0, "clip": True}
    return {"_target_": "ScaleIntensityRanged", "keys": "@image_key", **limits}


def ensure_type() -> dict[str, Any]:
    """No change of a number."""
    return {"_target_": "EnsureTyped", "keys": "@image_key"}


def sliding(roi: list[int], overlap: float, **others: Any) -> dict[str, Any]:
    """Windows."""
    return {"_target_": "SlidingWindowInferer", "roi_size": roi, "overlap": overlap, **others}


def activate(kind: str) -> dict[str, Any]:
    """Softmax or sigmoid."""
    return {"_target_": "Activationsd", "keys": "pred", kind: True}


def invert(*, nearest: bool) -> dict[str, Any]:
    """Back to the scan's grid."""
    return {
        "_target_": "Invertd",
        "keys": "pred",
        "transform": "@preprocessing",
        "orig_keys": "@image_key",
        "nearest_interp": nearest,
        "to_tensor": True,
    }


def argmax() -> dict[str, Any]:
    """The highest channel."""
    return {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}


def save() -> dict[str, Any]:
    """Writing, one file a case, without a folder of its own."""
    return {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_ext": ".nii.gz",
        "output_dtype": "$numpy.float32",
        "output_postfix": "trans",
        "separate_folder": False,
    }


def inference_config(parts: dict[str, Any]) -> dict[str, Any]:
    """A zoo-style `inference.json` around the parts of one bundle."""
    return {
        "imports": ["$import glob", "$import numpy", "$import os"],
        "bundle_root": ".",
        "image_key": "image",
        "output_dir": "$@bundle_root + '/eval'",
        "load_pretrain": True,
        "dataset_dir": "/data",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        **parts.get("extra", {}),
        "network_def": parts["network"],
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": parts["pre"]},
        "data": "$[{'image': i} for i in @datalist]",
        "dataset": {"_target_": "Dataset", "data": "@data", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        "inferer": parts["inferer"],
        "postprocessing": {"_target_": "Compose", "transforms": parts["post"]},
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
            "amp": True,
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "initialize": [
            "$setattr(torch.backends.cudnn, 'benchmark', True)",
            "$@checkpointloader(@evaluator) if @load_pretrain else None",
        ],
        "run": ["$@evaluator.run()"],
    }


def metadata(name: str, parts: dict[str, Any]) -> dict[str, Any]:
    """What consumers read of `metadata.json`."""
    channels = parts.get("channels", ["image"])
    shared = {"type": "image", "spatial_shape": [96, 96, 96], "dtype": "float32", "is_patch_data": True}
    return {
        "version": "0.0.1",
        "changelog": {"0.0.1": "random weights"},
        "monai_version": "1.4.0",
        "pytorch_version": "2.4.0",
        "numpy_version": "1.24.4",
        "name": name,
        "task": "benchmark",
        "network_data_format": {
            "inputs": {
                "image": {
                    **shared,
                    "format": "hounsfield",
                    "modality": parts.get("modality", "CT"),
                    "num_channels": len(channels),
                    "channel_def": {str(number): channel for number, channel in enumerate(channels)},
                }
            },
            "outputs": {
                "pred": {
                    **shared,
                    "format": "segmentation",
                    "num_channels": len(parts["names"]),
                    "channel_def": {str(number): label for number, label in enumerate(parts["names"])},
                }
            },
        },
    }


def random_network(parts: dict[str, Any], folder: Path) -> torch.nn.Module:
    """The network with random weights, its last layer centered and widened by what it gives for noise."""
    arguments = {name: value for name, value in parts["network"].items() if name != "_target_"}
    name = parts["network"]["_target_"].rpartition(".")[2]
    if name == "DiNTS":
        space = {key: value for key, value in parts["extra"]["dints_space"].items() if key[0] != "_"}
        code = search_code(space["num_blocks"], space["num_depths"])
        torch.save({**{k: v.numpy() for k, v in code.items()}}, folder / "models" / "search_code.pt")
        space |= {"arch_code": [code["arch_code_a"].numpy(), code["arch_code_c"].numpy()], "device": "cpu"}
        arguments |= {"dints_space": nets.TopologyInstance(**space), "node_a": code["node_a"]}
    if "spatial_dims" in arguments:
        arguments["spatial_dims"] = 3
    network = getattr(nets, name)(**arguments).eval()
    for module in network.modules():  # running statistics as a trained network has them
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    n_inputs = len(parts.get("channels", ["image"]))
    side = 96 if name in {"SwinUNETR", "DynUNet"} else 64
    noise = torch.nn.functional.interpolate(torch.rand(1, n_inputs, 12, 12, 12), size=(side,) * 3, mode="trilinear")
    with torch.inference_mode():
        logits = network(noise)[0].flatten(1)
    last = last_layer(network, len(logits))
    spread = logits.std(dim=1).clamp_min(1e-6)
    # a transposed convolution has its output channels second
    axis = 1 if isinstance(last, torch.nn.ConvTranspose3d) else 0
    shape = [-1 if a == axis else 1 for a in range(5)]
    with torch.no_grad():
        last.weight.mul_((2.0 / spread).reshape(shape))
        if last.bias is not None:
            last.bias.sub_(logits.mean(dim=1)).mul_(2.0 / spread)
    return network


def last_layer(network: torch.nn.Module, n_outputs: int) -> torch.nn.Module:
    """The last convolution with as many outputs as there are classes."""
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv3d) and m.out_channels == n_outputs]
    if not layers:
        layers = [
            m for m in network.modules() if isinstance(m, torch.nn.ConvTranspose3d) and m.out_channels == n_outputs
        ]
    return layers[-1]


def search_code(n_blocks: int, n_depths: int) -> dict[str, torch.Tensor]:
    """An architecture in which every path is taken by a skip or a convolution."""
    n_paths = 3 * n_depths - 2
    arch_code_a = torch.ones(n_blocks, n_paths)
    arch_code_c = torch.randint(1, 4, (n_blocks, n_paths)).double()
    return {"arch_code_a": arch_code_a, "arch_code_c": arch_code_c, "node_a": torch.ones(n_blocks + 1, n_depths)}


def write_bundle(name: str, folder: Path) -> Path:
    """One bundle."""
    torch.manual_seed(SEED)
    parts: dict[str, Any] = globals()[name]()
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    config = inference_config(parts)
    (folder / "configs" / "inference.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata(name, parts), indent=2) + "\n")
    torch.save(random_network(parts, folder).state_dict(), folder / "models" / "model.pt")
    return folder


def main() -> None:
    """Write them all, or some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", nargs="*", choices=BUNDLES, default=BUNDLES)
    arguments = parser.parse_args()
    for name in arguments.only:
        print(write_bundle(name, arguments.output / name))


if __name__ == "__main__":
    main()
