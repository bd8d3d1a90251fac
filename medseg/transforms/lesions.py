"""MONAI adapters of separation: dictionary transforms around `medseg.separate_lesions`.

A prediction is a tensor of channels: probabilities of the classes, background first, and where the network has instance
heads four more: center, and offsets in mm along the axes of `offset_axcodes`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep
from numpy.typing import NDArray

from medseg.core.evidence import InstanceEvidence
from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.plan import SeparationPlan
from medseg.core.semantic import SemanticMap
from medseg.errors import UsageError
from medseg.lesions.separate import separate_lesions
from medseg.transforms.border import geometry_of

__all__ = ["JoinedProbabilitiesd", "SeparateLesionsd"]

_N_HEAD_CHANNELS = 4


class JoinedProbabilitiesd(MapTransform):
    """Softmax over the first `n_classes` channels; instance heads behind them stay as they are."""

    def __init__(self, keys: KeysCollection, n_classes: int) -> None:
        super().__init__(keys)
        self.n_classes = n_classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with every key's logits activated."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            values = changed[key]
            probabilities = torch.softmax(values[: self.n_classes].float(), dim=0)
            changed[key] = torch.cat([probabilities, values[self.n_classes :].float()])
        return changed


class SeparateLesionsd(MapTransform):
    """Turn predictions into semantic maps and lesion maps.

    Each key must hold a MetaTensor straight from a MONAI transform: either (1, I, J, K) class numbers, or
    (N, I, J, K) probabilities of background and classes, or (N + 4, I, J, K) with instance heads. The key then holds
    the semantic map (1, I, J, K), and `lesions_keys` the lesion map (1, I, J, K), both with the affine of the input.

    Parameters
    ----------
    keys
        Predictions.
    lesions_keys
        Where lesion maps go, one a key.
    classes
        Class number to name; None for one class, "lesion".
    separation
        Fields of a `SeparationPlan`, or one; None for its defaults.
    offset_axcodes
        Along which axes the offsets run: the orientation of the grid that the network saw.
    foreground_threshold
        0..1, probability of anything but background above which a voxel is marked, with the likeliest class; None: the
        likeliest of all wins. Class numbers are taken as they are.

    Raises
    ------
    UsageError
        If a prediction has another number of channels.
    """

    def __init__(
        self,
        keys: KeysCollection,
        lesions_keys: KeysCollection = "lesions",
        classes: Mapping[str | int, str] | None = None,
        separation: SeparationPlan | Mapping[str, Any] | None = None,
        offset_axcodes: str = "RAS",
        foreground_threshold: float | None = None,
    ) -> None:
        super().__init__(keys)
        self.lesions_keys = ensure_tuple_rep(lesions_keys, len(self.keys))
        self.scheme = LabelScheme(classes={int(number): name for number, name in (classes or {1: "lesion"}).items()})
        self.separation = SeparationPlan.model_validate(separation or {})
        self.offset_axcodes = offset_axcodes
        self.foreground_threshold = foreground_threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with semantic maps and lesion maps."""
        changed = dict(data)
        for key, lesions_key in self.key_iterator(changed, self.lesions_keys):
            prediction: MetaTensor = changed[key]
            semantic = self._semantic(prediction)
            lesions = separate_lesions(semantic, self.separation)
            changed[key] = _like(prediction, np.array(semantic.array))
            changed[lesions_key] = _like(prediction, lesions.array.astype(np.int64))
        return changed

    def _semantic(self, prediction: MetaTensor) -> SemanticMap:
        geometry = geometry_of(prediction)
        values = prediction.detach().cpu().numpy()
        n_classes = self.scheme.highest + 1
        if values.shape[0] == 1:
            return SemanticMap(np.rint(values[0]).astype(np.uint16), geometry, self.scheme)
        if values.shape[0] not in (n_classes, n_classes + _N_HEAD_CHANNELS):
            raise UsageError(
                f"a prediction of {n_classes - 1} class(es) has 1, {n_classes} or {n_classes + _N_HEAD_CHANNELS} "
                f"channels; got {values.shape[0]}"
            )
        probabilities, heads = values[:n_classes], values[n_classes:]
        evidence = _evidence(heads, geometry, self.offset_axcodes) if len(heads) else None
        foreground = np.clip(1.0 - probabilities[0], 0.0, 1.0).astype(np.float32)
        classes = probabilities.argmax(axis=0)
        if self.foreground_threshold is not None:
            classes = np.where(foreground > self.foreground_threshold, probabilities[1:].argmax(axis=0) + 1, 0)
        return SemanticMap(classes.astype(np.uint16), geometry, self.scheme, probability=foreground, evidence=evidence)


def _evidence(heads: NDArray[np.float32], geometry: Geometry, axcodes: Sequence[str]) -> InstanceEvidence:
    """Offsets turned from the axes of the network's grid to those of this one."""
    offsets = []
    for code in geometry.axcodes:
        source = next(n for n, other in enumerate(axcodes) if {code, other} <= set(_pair(code)))
        offsets.append(heads[1 + source] * (1.0 if axcodes[source] == code else -1.0))
    return InstanceEvidence(heads[0], np.stack(offsets), geometry)


def _pair(code: str) -> str:
    return next(pair for pair in ("LR", "PA", "IS") if code in pair)


def _like(prediction: MetaTensor, array: NDArray[np.integer]) -> MetaTensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array.astype(np.int64)))[None]
    return MetaTensor(tensor, meta=dict(prediction.meta))  # the affine is among what it remembers
