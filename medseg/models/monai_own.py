"""Code of a bundle's own, run with the user's trust: its network, and where need be its transforms and inferer.

This is the one module that executes what lies in a model's folder. It is reached only with `--trust` or with a pinned
hash.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from monai.transforms import Compose
from torch import nn

from medseg.core.labels import LabelScheme
from medseg.core.monitor import Monitor
from medseg.core.semantic import SemanticMap
from medseg.core.volume import Volume
from medseg.errors import InvalidBundle, ModelError
from medseg.inference.segmenter import TakesOver
from medseg.models.monai_files import BundleFiles
from medseg.transforms.border import volume_to_tensor

__all__ = ["OwnCode"]

_NOT_HERE = ("Load", "Save", "EnsureChannelFirst", "AddChannel")  # medseg reads and writes
_NETWORK_KEYS = ("network_def", "network", "net", "model")


class OwnCode:
    """A bundle whose code may run.

    Parameters
    ----------
    files
        The bundle.
    """

    def __init__(self, files: BundleFiles) -> None:
        self._files = files
        content = _without_files(copy.deepcopy(dict(files.content)))
        self._parser = ConfigParser(_on_this_machine(content))
        self._parser["bundle_root"] = str(files.folder)

    def network(self) -> nn.Module:
        """The network, built by the bundle's own code.

        Raises
        ------
        InvalidBundle
            If that fails, or gives no network.
        """
        key = next((key for key in _NETWORK_KEYS if key in self._files.content), None)
        if key is None:
            raise InvalidBundle(f"{self._files.name}: none of {', '.join(_NETWORK_KEYS)} is there")
        built = self._get(key)
        if not isinstance(built, nn.Module):
            raise InvalidBundle(f"{self._files.name}: {key} gives {type(built).__name__}, not a network")
        return built

    def evaluate(self, key: str) -> None:
        """Run one statement of the bundle.

        Raises
        ------
        InvalidBundle
            If it fails.
        """
        self._get(key)

    def pipeline(self, network: nn.Module, names: Mapping[int, str]) -> TakesOver:
        """The bundle's own preprocessing, inferer and postprocessing around its network.

        Parameters
        ----------
        network
            With its weights.
        names
            Of the classes, by number.
        """
        prepare = _transforms(self._get("preprocessing"))
        finish = _transforms(self._get("postprocessing", None))
        inferer = self._get("inferer", None) or SimpleInferer()
        keys = _image_keys(self._files.content)

        def run(device: torch.device, volume: Volume, monitor: Monitor) -> tuple[SemanticMap, tuple[str, ...]]:
            network.to(device)
            with _importable(self._files.folder), torch.inference_mode():
                with monitor.stage("preprocess"):
                    data = dict(prepare(_as_data(volume, keys)))
                with monitor.stage("network"):
                    logits = inferer(data["image"][None].to(device), network)
                with monitor.stage("export"):
                    data["pred"] = MetaTensor(logits[0].cpu().float(), meta=_meta(data, keys))
                    labels = finish(data)["pred"] if finish is not None else data["pred"].argmax(0, keepdim=True)
            return _as_map(labels, volume, self._files, names), ()

        return run

    def _get(self, key: str, *default: Any) -> Any:
        if default and key.partition("::")[0] not in self._files.content:
            return default[0]
        try:
            with _importable(self._files.folder):
                return self._parser.get_parsed_content(key)
        except ModelError:
            raise
        except Exception as error:  # the bundle's code may raise anything
            reason = f"{type(error).__name__}: {error}" + (f" ({error.__cause__})" if error.__cause__ else "")
            raise InvalidBundle(f"{self._files.name}: {key} fails in the bundle's own code: {reason}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The bundle's folder on the path of imports; packages of another bundle by the same name are forgotten."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
        places = [*getattr(sys.modules[name], "__path__", ()), getattr(sys.modules[name], "__file__", None) or ""]
        if not any(Path(place).is_relative_to(folder) for place in places if place):
            del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what MONAI says of a bundle's style is for its author
            yield
    finally:
        sys.path.remove(str(folder))


def _without_files(value: Any) -> Any:
    """The configuration without transforms that read or write files."""
    if isinstance(value, dict):
        return {key: _without_files(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_files(item) for item in value if not _touches_files(item)]
    return value


def _touches_files(item: Any) -> bool:
    name = str(item.get("_target_", "")).rpartition(".")[2] if isinstance(item, dict) else ""
    return name.startswith(_NOT_HERE)


def _on_this_machine(value: Any) -> Any:
    """Literal CUDA devices replaced by the CPU: medseg moves the network afterwards."""
    if isinstance(value, dict):
        return {key: _on_this_machine(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_on_this_machine(item) for item in value]
    if isinstance(value, str) and value.startswith("$"):
        return value.replace("torch.device('cuda')", "torch.device('cpu')").replace(
            'torch.device("cuda")', "torch.device('cpu')"
        )
    return value


def _transforms(composed: Any) -> Any:
    if composed is None or callable(composed):
        return composed
    return Compose(list(composed))


def _image_keys(content: Mapping[str, Any]) -> list[str]:
    """Keys that the bundle loads its images under."""
    for target, item in _targets(content):
        if target.startswith("Load"):
            keys = item.get("keys", "image")
            listed = [keys] if isinstance(keys, str) else list(keys)
            named = [_plain_key(key, content) for key in listed]
            return [key for key in named if key not in {"label", "labels"}]
    return ["image"]


def _plain_key(key: str, content: Mapping[str, Any]) -> str:
    value = content.get(key[1:], "image") if key.startswith("@") else key
    return "image" if str(value).startswith("$") else str(value)


def _targets(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        if isinstance(value.get("_target_"), str):
            yield value["_target_"].rpartition(".")[2], value
        for item in value.values():
            yield from _targets(item)
    elif isinstance(value, list):
        for item in value:
            yield from _targets(item)


def _as_data(volume: Volume, keys: Sequence[str]) -> dict[str, Any]:
    whole = volume_to_tensor(volume)
    if len(keys) == 1:
        return {keys[0]: whole}
    return {key: whole[number : number + 1] for number, key in enumerate(keys)}


def _meta(data: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    image = data.get("image", data.get(keys[0]))
    return dict(image.meta) if isinstance(image, MetaTensor) else {}


def _as_map(labels: Any, volume: Volume, files: BundleFiles, names: Mapping[int, str]) -> SemanticMap:
    """The bundle's own result as a semantic map.

    Raises
    ------
    InvalidBundle
        If it is not one class number for each voxel of the scan.
    """
    array = np.asarray(labels.as_tensor() if isinstance(labels, MetaTensor) else labels)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.shape != volume.geometry.shape:
        raise InvalidBundle(
            f"{files.name}: its own postprocessing gives an array of {array.shape}; the scan is {volume.geometry.shape}"
        )
    numbers = np.nan_to_num(array).round().astype(np.uint16)
    present = [int(number) for number in np.unique(numbers) if number > 0]
    named = {number: names.get(number) or f"class {number}" for number in {*present, *names} if number > 0}
    scheme = LabelScheme(classes=named or {1: "class 1"})
    return SemanticMap(numbers, volume.geometry, scheme)
