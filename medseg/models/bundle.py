"""medseg's own MONAI bundles: a folder with configs, weights and a model card.

NAME/
LICENSE
configs/metadata.json     what the MONAI bundle specification asks for
configs/inference.json    the same model for `python -m monai.bundle run`
configs/plan.json         the plan: what medseg itself reads
models/model.pt           a plain state dict
models/instance_heads.pt  the same for instance heads that are a branch of their own, where there are some
configs/lesions.json      laid over inference.json: `monai.bundle run` also writes lesion maps, by medseg
configs/segment.json      laid over inference.json: medseg's whole way, tables too
configs/evaluate.json     laid over inference.json: Dice of each case against label maps
configs/train.json        the network trained on under `monai.bundle run`
configs/logging.conf      what `monai.bundle run` logs
docs/README.md            the model card
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.core.plan import Plan
from medseg.errors import InvalidBundle

__all__ = [
    "Bundle",
    "EVALUATE_PATH",
    "HEADS_PATH",
    "INFERENCE_PATH",
    "LESIONS_PATH",
    "LOGGING_PATH",
    "METADATA_PATH",
    "MODEL_CARD_PATH",
    "PLAN_PATH",
    "SEGMENT_PATH",
    "TRAIN_PATH",
    "WEIGHTS_PATH",
    "read_bundle",
]

PLAN_PATH = Path("configs") / "plan.json"
METADATA_PATH = Path("configs") / "metadata.json"
INFERENCE_PATH = Path("configs") / "inference.json"
LESIONS_PATH = Path("configs") / "lesions.json"
SEGMENT_PATH = Path("configs") / "segment.json"
EVALUATE_PATH = Path("configs") / "evaluate.json"
TRAIN_PATH = Path("configs") / "train.json"
LOGGING_PATH = Path("configs") / "logging.conf"
WEIGHTS_PATH = Path("models") / "model.pt"
HEADS_PATH = Path("models") / "instance_heads.pt"
"""Longer than the name of the weights: MONAI Label loads the file of the shortest name."""
_HEADS_PATH_BEFORE = Path("models") / "heads.pt"
MODEL_CARD_PATH = Path("docs") / "README.md"


@dataclass(frozen=True)
class Bundle:
    """A bundle folder whose plan has been read; weights not in memory."""

    folder: Path
    plan: Plan

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.folder / WEIGHTS_PATH

    @property
    def heads(self) -> Path | None:
        """The weights file of the instance heads, if there is one."""
        if not self.plan.network.instance_heads:
            return None
        paths = (self.folder / HEADS_PATH, self.folder / _HEADS_PATH_BEFORE)
        return next((path for path in paths if path.is_file()), None)


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle's plan and check that its weights are there.

    Raises
    ------
    InvalidBundle
        If the plan or the weights are missing, or the plan is not valid.
    """
    plan_file = folder / PLAN_PATH
    if not plan_file.is_file():
        raise InvalidBundle(
            f"{folder}: no {PLAN_PATH} there, so this is not a model that medseg trained; "
            "this version runs medseg's own bundles (see `medseg train`)"
        )
    bundle = Bundle(folder, Plan.from_json(plan_file.read_text(encoding="utf-8"), source=str(plan_file)))
    if not bundle.weights.is_file():
        raise InvalidBundle(f"{folder}: no weights at {WEIGHTS_PATH}; the bundle is incomplete")
    return bundle
