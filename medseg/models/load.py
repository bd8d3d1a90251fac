"""One door to any model; MONAI, which takes two seconds, is only imported for models that need it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.core.plan import Plan
from medseg.core.recipe import recipe_of
from medseg.errors import InvalidBundle, UsageError
from medseg.inference.device import Precision
from medseg.inference.engine import EngineName
from medseg.inference.options import RunOptions
from medseg.inference.segmenter import Segmenter
from medseg.models.bundle import PLAN_PATH, read_bundle
from medseg.models.exported import is_exported, read_exported
from medseg.models.loaded import LoadedModel
from medseg.models.monai_files import find_bundle, is_monai_bundle, unpacked_model
from medseg.models.nnunet import find_nnunet_folder, previous_stage_folder, read_nnunet
from medseg.models.shipped import find_model
from medseg.models.trust import is_trusted
from medseg.networks.description import NetworkDescription, describe_nnunet

__all__ = ["load_model", "load_segmenter"]


def load_segmenter(
    model: str | Path,
    *,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "auto",
    trust: bool | None = None,
    folds: Sequence[int | str] | None = None,
    classes: Sequence[int | str] | None = None,
    options: RunOptions | None = None,
) -> Segmenter:
    """Load a model, ready to segment.

    Nothing from the model's folder is executed unless it is trusted: configurations are read as data, weights are
    tensors.

    Parameters
    ----------
    model
        Name of a shipped bundle ("sarcoma_pet"); or a medseg bundle, a MONAI bundle (folder, zip or TorchScript file),
        an nnU-Net v2 model folder (also one in which a single such model lies), or the folder that `medseg model
        export` wrote.
    device
        "auto", "cpu", "cuda" or "cuda:N".
    engine
        "auto" for what is fastest on this machine, measured once; "torch", "compiled" or "openvino".
    precision
        "auto" (bfloat16 on a CPU that multiplies it, where the network keeps its answer, else float32; half precision
        on CUDA), "exact" (float32 and the arithmetic of the model's own family), "float32", "bfloat16" or "float16".
    trust
        Whether the model may run code of its own: True, False, or None for models that were pinned by
        `medseg model trust`.
    folds
        Numbers (or "all") of the folds of an nnU-Net model; None for all that it has.
    classes
        Numbers or names of the classes that a network is asked for, if it is one that is asked (VISTA3D); None for all
        that the bundle lists as everything.
    options
        Test-time flips, air, memory.

    Raises
    ------
    UnknownModel
        If there is no such model.
    InvalidBundle
        If something is missing, damaged, or contradicts itself.
    UntrustedCode
        If code of the model's own would have to run; the message says which.
    ChangedModel
        If the model is pinned, and has changed since.
    UnsupportedModel
        If the model is for 2-D images, finds boxes, or does what medseg does not follow.
    InvalidPlan
        If the plan is not valid.
    UsageError
        If the device is not there, engine, precision and device do not go together, a class is unknown, or classes are
        given for a model that is not asked for classes.
    """
    loaded = load_model(model, trust=trust, folds=folds, classes=classes)
    return _segmenter(loaded, device=device, engine=engine, precision=precision, options=options)


def _segmenter(loaded: LoadedModel, **how: Any) -> Segmenter:
    before = loaded.previous
    return Segmenter(
        loaded.networks,
        loaded.recipe,
        weights_sha256=loaded.weights_sha256,
        previous=None if before is None else _segmenter(before, **how),
        takes_over=loaded.takes_over,
        **how,
    )


def load_model(
    model: str | Path,
    *,
    trust: bool | None = None,
    folds: Sequence[int | str] | None = None,
    classes: Sequence[int | str] | None = None,
) -> LoadedModel:
    """Load a model's networks and recipe.

    Parameters
    ----------
    model, trust, folds, classes
        As `load_segmenter`.

    Raises
    ------
    UnknownModel, InvalidBundle, UntrustedCode, ChangedModel, UnsupportedModel, InvalidPlan, UsageError
        As `load_segmenter`.
    """
    source = find_model(model)
    pinned = is_trusted(source) if trust is None else False
    path = unpacked_model(source)
    is_own = path.is_dir() and (path / PLAN_PATH).is_file()
    if classes is not None and (is_own or is_exported(path) or not is_monai_bundle(path)):
        raise UsageError(f"{path.name}: only bundles of networks that are asked for classes (VISTA3D) take classes")
    if is_own:
        return _own_bundle(path)
    if path.is_dir() and is_exported(path):
        return read_exported(path)
    if is_monai_bundle(path):
        from medseg.models.monai_bundle import read_monai_bundle

        return read_monai_bundle(find_bundle(path, source), trust=bool(trust) or pinned, classes=classes)
    nnunet = find_nnunet_folder(path) if path.is_dir() else None
    if nnunet is not None:
        return _nnunet(nnunet, folds)
    if path.is_file():
        raise InvalidBundle(
            f"{path}: a model is a folder, a zip of one, or a TorchScript bundle; this is a file of another kind"
        )
    raise InvalidBundle(
        f"{path}: no model there that medseg knows: neither {PLAN_PATH} (medseg), configs/inference.json "
        "(MONAI), plans.json with fold_0 (nnU-Net), nor recipe.json (exported)"
    )


def _own_bundle(folder: Path) -> LoadedModel:
    """A bundle that medseg trained."""
    from medseg.models.own_network import own_network, own_weights_sha256

    bundle = read_bundle(folder)
    return LoadedModel(
        [own_network(bundle)],
        recipe_of(bundle.plan),
        own_weights_sha256(bundle),
        folder,
        (_described(bundle.plan),),
    )


def _nnunet(folder: Path, folds: Sequence[int | str] | None) -> LoadedModel:
    """An nnU-Net model; a cascade's second stage with the first, whose weights then count in the hash."""
    before = previous_stage_folder(folder)
    previous = None if before is None else _nnunet(before, None)
    networks, recipe, sha256 = read_nnunet(folder, folds)
    if previous is not None:
        sha256 = hashlib.sha256((previous.weights_sha256 + sha256).encode()).hexdigest()
    descriptions = tuple(describe_nnunet(network) for network in networks)
    return LoadedModel(networks, recipe, sha256, folder, descriptions, previous=previous)


def _described(plan: Plan) -> NetworkDescription:
    from medseg.networks.build import described_network

    family, name, arguments = described_network(plan)
    member = NetworkDescription(family=family, name=name, arguments=arguments)
    if plan.network.members == 1:
        return member
    members = [member.model_dump(mode="json")] * plan.network.members
    return NetworkDescription(family="medseg", name="MeanOfNetworks", arguments={"members": members})
