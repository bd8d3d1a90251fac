"""Where a MONAI bundle lies: a folder, a zip of one, or a TorchScript file; its configuration and metadata as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import InvalidBundle
from medseg.io.archive import ArchiveLimits, is_archive, unpack_until_exit
from medseg.models.monai_config import BundleConfig, parse_config
from medseg.models.monai_weights import load_plain
from medseg.models.torchscript import is_torchscript, read_script_texts

__all__ = ["BundleFiles", "find_bundle", "is_monai_bundle", "unpacked_model"]

_NAMES = ("inference", "evaluate", "test", "infer", "predict")
_ENDINGS = (".json", ".yaml", ".yml")
_LIMITS = ArchiveLimits(max_members=20_000, max_total_bytes=16 * 2**30, max_depth=0)


@dataclass(frozen=True)
class BundleFiles:
    """A bundle on disk.

    Parameters
    ----------
    source
        What was given: folder, zip or TorchScript file.
    folder
        Where its files lie; for a TorchScript file the folder that holds it.
    config_name
        Of the configuration, for messages.
    content
        Of the configuration.
    metadata
        Of the network; empty where there is none.
    script
        The TorchScript file, if the bundle is one.
    """

    source: Path
    folder: Path
    config_name: str
    content: Mapping[str, Any]
    metadata: Mapping[str, Any]
    script: Path | None = None

    @property
    def name(self) -> str:
        """Name of the model: the folder's, or the file's without its ending."""
        return self.source.stem if self.source.is_file() else self.source.resolve().name

    def config(self) -> BundleConfig:
        """The configuration, to be resolved."""
        shown = f"{self.name}: {self.config_name}"
        return BundleConfig(self.content, shown, self.folder, load=lambda path: load_plain(self._inside(path)))

    def _inside(self, path: str) -> Path:
        file = Path(path) if Path(path).is_absolute() else self.folder / path
        if not file.resolve().is_relative_to(self.folder.resolve()):
            raise InvalidBundle(f"{self.name}: {path} lies outside of the bundle; nothing there is read")
        return file


def is_monai_bundle(path: Path) -> bool:
    """Whether a folder or file looks like a MONAI bundle; nothing is unpacked."""
    if path.is_dir():
        return (path / "configs" / "metadata.json").is_file() or _config_file(path) is not None
    return path.is_file() and is_torchscript(path)


def unpacked_model(path: Path) -> Path:
    """The folder of a model that lies in a zip; a path that is no zip, or a TorchScript file, as it is.

    Raises
    ------
    InvalidBundle
        If the zip is damaged or holds anything but one folder.
    UnsafeArchive
        If it unpacks to more than a model takes.
    """
    if not path.is_file() or is_torchscript(path) or not is_archive(path):
        return path
    unpacked = unpack_until_exit(path, _LIMITS)
    if unpacked.damaged:
        first = unpacked.damaged[0]
        raise InvalidBundle(f"{path}: {len(unpacked.damaged)} damaged file(s), first {first.name}: {first.reason}")
    inside = [entry for entry in unpacked.folder.iterdir() if entry.name not in {"__MACOSX", ".DS_Store"}]
    if any(entry.name == "configs" for entry in inside):
        return unpacked.folder
    if len(inside) != 1 or not inside[0].is_dir():
        raise InvalidBundle(f"{path}: expected one folder in the zip, the bundle; it holds {len(inside)} entries")
    return inside[0]


def find_bundle(path: Path, source: Path | None = None) -> BundleFiles:
    """The files of a bundle.

    Parameters
    ----------
    path
        Folder, or TorchScript file.
    source
        What the user gave, if that was a zip.

    Raises
    ------
    InvalidBundle
        If there is no configuration, or it cannot be read.
    """
    source = source or path
    if path.is_file():
        return _script_bundle(path)
    file = _config_file(path)
    if file is None:
        raise InvalidBundle(f"{source}: no configs/inference.json or .yaml there, so this is no bundle that can be run")
    content = parse_config(file.read_text(encoding="utf-8"), str(file))
    return BundleFiles(source, path, f"configs/{file.name}", content, _metadata(path / "configs" / "metadata.json"))


def _script_bundle(path: Path) -> BundleFiles:
    texts = read_script_texts(path)
    found = [name for stem in _NAMES for name in texts if name == f"{stem}.json"]
    if not found:
        raise InvalidBundle(
            f"{path}: a TorchScript file without extra/inference.json, so nothing says what its input is; "
            "export it with `python -m monai.bundle ckpt_export`"
        )
    content = parse_config(texts[found[0]], f"{path.name}:extra/{found[0]}")
    metadata = json.loads(texts.get("metadata.json", "{}") or "{}")
    return BundleFiles(path, path.parent, f"extra/{found[0]}", content, metadata, script=path)


def _config_file(folder: Path) -> Path | None:
    for name in _NAMES:
        for ending in _ENDINGS:
            if (folder / "configs" / f"{name}{ending}").is_file():
                return folder / "configs" / f"{name}{ending}"
    return None


def _metadata(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    return parse_config(file.read_text(encoding="utf-8"), str(file))
