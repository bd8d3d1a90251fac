"""One door to any model."""

from __future__ import annotations

from pathlib import Path

from medseg.errors import InvalidBundle
from medseg.inference.device import Precision
from medseg.inference.engine import EngineName
from medseg.inference.options import RunOptions
from medseg.inference.segmenter import Segmenter
from medseg.models.bundle import read_bundle
from medseg.models.shipped import find_model
from medseg.networks.build import build_network
from medseg.networks.checkpoint import load_weights, read_state_dict, weights_sha256

__all__ = ["load_segmenter"]


def load_segmenter(
    model: str | Path,
    *,
    device: str = "auto",
    engine: EngineName = "torch",
    precision: Precision = "auto",
    options: RunOptions | None = None,
) -> Segmenter:
    """Load a model, ready to segment.

    Nothing from the model's folder is executed: its plan is JSON and its weights are tensors.

    Parameters
    ----------
    model
        Name of a shipped bundle ("sarcoma_pet"), or the folder of a medseg bundle.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    engine
        "torch".
    precision
        "auto" (float32 on CPU, half precision on CUDA), "exact" (the arithmetic of the model's own family), "float32",
        "bfloat16" or "float16".
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
