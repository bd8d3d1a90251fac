"""Provenance: what made a result, so that it can be made again."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from pydantic import BaseModel, ConfigDict

__all__ = ["Provenance", "installed_versions"]

_PACKAGES = (
    "medseg",
    "torch",
    "openvino",
    "monai",
    "numpy",
    "scipy",
    "scikit-image",
    "connected-components-3d",
    "nibabel",
    "pydicom",
)


class Provenance(BaseModel):
    """Versions, hashes and settings behind a result.

    `inputs_sha256` lists one hash a channel: of the file, or of the file hashes of a series in slice order.
    `notes` records everything that was done to the input beside reading it (filled voxels, dropped axes, ...).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name: str
    weights_sha256: str
    plan_sha256: str
    inputs_sha256: tuple[str, ...]
    device: str
    engine: str
    precision: str
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number; absent packages are left out."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
