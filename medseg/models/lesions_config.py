"""The part of a bundle that makes lesion maps under `monai.bundle run`, laid over its inference.json."""

from __future__ import annotations

from typing import Any

from medseg.core.plan import Plan
from medseg.models.config_parts import IMPORTS, sliding_window_inferer

__all__ = ["lesions_config"]


def lesions_config(plan: Plan) -> dict[str, Any]:
    """What `configs/lesions.json` holds: the network with all its heads, and a step that separates lesions.

    It is given after inference.json: `--config_file "['configs/inference.json', 'configs/lesions.json']"`.
    """
    return {
        "imports": [*IMPORTS, "$import medseg"],
        "network_def": {"_target_": "medseg.models.own_network.joined_network", "folder": "@bundle_root"},
        "inferer": sliding_window_inferer(plan),
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "medseg.transforms.lesions.JoinedProbabilitiesd",
                    "keys": "pred",
                    "n_classes": plan.labels.highest + 1,
                },
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {
                    "_target_": "medseg.transforms.lesions.SeparateLesionsd",
                    "keys": "pred",
                    "lesions_keys": "lesions",
                    "classes": {str(number): name for number, name in plan.labels.classes.items()},
                    "offset_axcodes": plan.orientation,
                    "separation": plan.separation.model_dump(mode="json"),
                    **_threshold(plan),
                },
                *(_saved(key, name) for key, name in (("pred", "semantic"), ("lesions", "lesions"))),
            ],
        },
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
    }


def _threshold(plan: Plan) -> dict[str, float]:
    threshold = plan.inference.foreground_threshold
    return {} if threshold is None else {"foreground_threshold": threshold}


def _saved(key: str, postfix: str) -> dict[str, Any]:
    return {
        "_target_": "SaveImaged",
        "keys": key,
        "output_dir": "@output_dir",
        "output_postfix": postfix,
        "output_dtype": "$torch.uint8" if postfix == "semantic" else "$torch.int32",
        "resample": False,
    }
