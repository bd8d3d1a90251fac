"""One door to any model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import InvalidBundle
from medseg.inference.device import Precision
from medseg.inference.engine import EngineName
from medseg.inference.options import RunOptions
from medseg.inference.segmenter import Segmenter
from medseg.models.bundle import PLAN_PATH, read_bundle
from medseg.models.nnunet import find_nnunet_folder, previous_stage_folder, read_nnunet
from medseg.models.shipped import find_model
from medseg.networks.build import build_network
from medseg.networks.checkpoint import load_weights, read_state_dict, weights_sha256

__all__ = ["load_segmenter"]


@dataclass(frozen=True)
class _Options:
    device: str
    engine: EngineName
    precision: Precision
    run: RunOptions | None


def load_segmenter(
    model: str | Path,
    *,
    device: str = "auto",
    engine: EngineName = "torch",
    precision: Precision = "auto",
    folds: Sequence[int | str] | None = None,
    options: RunOptions | None = None,
) -> Segmenter:
    """Load a model, ready to segment.

    Nothing from the model's folder is executed: its plan is JSON and its weights are tensors.

    Parameters
    ----------
    model
        Name of a shipped bundle ("sarcoma_pet"), the folder of a medseg bundle, or an nnU-Net v2 model folder (also
        one in which a single such model lies).
    device
        "auto", "cpu", "cuda" or "cuda:N".
    engine
        "torch".
    precision
        "auto" (float32 on CPU, half precision on CUDA), "exact" (the arithmetic of the model's own family), "float32",
        "bfloat16" or "float16".
    folds
        Numbers (or "all") of the folds of an nnU-Net model; None for all that it has.
    options
        Test-time flips, air, memory.

    Raises
    ------
    UnknownModel
        If there is no such model.
    InvalidBundle
        If the folder is incomplete, or weights and plan do not fit each other.
    InvalidPlan
        If the plan is not valid.
    UsageError
        If the device is not there.
    """
    folder = find_model(model)
    if not folder.is_dir():
        raise InvalidBundle(f"{folder}: a model is a bundle folder; this is a file")
    nnunet = None if (folder / PLAN_PATH).is_file() else find_nnunet_folder(folder)
    if nnunet is not None:
        return _nnunet_segmenter(nnunet, folds, _Options(device, engine, precision, options))
    bundle = read_bundle(folder)
    network = build_network(bundle.plan)
    load_weights(network, read_state_dict(bundle.weights), bundle.weights)
    return Segmenter(
        network,
        bundle.plan,
        weights_sha256=weights_sha256(bundle.weights),
        device=device,
        engine=engine,
        precision=precision,
        options=options,
    )


def _nnunet_segmenter(folder: Path, folds: Sequence[int | str] | None, options: _Options) -> Segmenter:
    """An nnU-Net model; a cascade's second stage with the first, whose weights then count in the hash."""
    before = previous_stage_folder(folder)
    previous = None if before is None else _nnunet_segmenter(before, None, options)
    networks, recipe, sha256 = read_nnunet(folder, folds)
    if previous is not None:
        sha256 = hashlib.sha256((previous.weights_sha256 + sha256).encode()).hexdigest()
    return Segmenter(
        networks,
        recipe,
        weights_sha256=sha256,
        device=options.device,
        engine=options.engine,
        precision=options.precision,
        options=options.run,
        previous=previous,
    )
