"""Code that bundles carry: what of it is known well enough to be replaced by medseg's own, and how the rest is refused.

A few transforms of public bundles are small and known word for word. They are recognized by the hash of their syntax
tree, without running them; where the hash differs, they are code like any other.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from medseg.errors import UntrustedCode
from medseg.models.monai_config import BundleConfig
from medseg.models.monai_values import Component

__all__ = ["class_sha256", "known_class", "known_variant", "own_code"]

_LARGEST_FILE = 2**20
# class name to SHA-256 of its syntax tree, as of the public MONAI model zoo
_KNOWN: dict[str, set[str] | dict[str, str]] = {
    # np.concatenate along the channels
    "ConcatImages": {"3223f84d80929f40d369d07a8081db53a7d56bc88e1461c7e41606cbeed39c51"},
    # of the channels that are set, the lowest number but 0
    "MergeClassesd": {"71ecf4cb2225ddc10c641418cd82f7dec8f22a21a1919086bf1df32d0fe6e9c2"},
    # a sliding window over a network that is asked for classes; its blending
    "Vista3dInferer": {
        "40e720c0461f34334c020416987f3c374a6efced6f9c5287f2e8fb8841f33b75": "constant",  # and its overlap 0.25
        "872f1c1f65a26449b291a61949db80b658715052195bc0ee62e7f6fc2e591eca": "gaussian",
    },
    # turns clicks; nothing where there are none
    "OrientationGuidanceMultipleLabelDeepEditd": {"fac267c8553b852745b5cb3a0140f1be6c7052f2ec8e5857f92243a38f8021f8"},
}


def known_class(config: BundleConfig, component: Component) -> bool:
    """Whether a class of the bundle's own is word for word one that medseg knows."""
    file = _file(config, component)
    return class_sha256(file, component.name) in _KNOWN.get(component.name, set())


def known_variant(config: BundleConfig, component: Component) -> str | None:
    """What tells one known version of a class of the bundle's own from another; None if it is not known."""
    variants = _KNOWN.get(component.name)
    sha256 = class_sha256(_file(config, component), component.name)
    return variants.get(sha256 or "") if isinstance(variants, dict) else None


def class_sha256(file: Path, name: str) -> str | None:
    """SHA-256 of the syntax tree of a class, comments and spacing aside; None if it is not there."""
    try:
        if file.stat().st_size > _LARGEST_FILE:
            return None
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return hashlib.sha256(_tree(node).encode()).hexdigest()
    return None


def own_code(config: BundleConfig, key: str, target: str) -> UntrustedCode:
    """The refusal to run a class or function of the bundle's own."""
    parts = target.split(".")[:-1]
    place = f" ({'/'.join(parts)}.py)" if parts else ""
    return UntrustedCode(
        f"{config.name}: {key} would run code of the bundle: {target}{place}. --trust runs it, if you know where it "
        "comes from"
    )


def _file(config: BundleConfig, component: Component) -> Path:
    root = Path(config.content["bundle_root"])
    return root.joinpath(*component.target.split(".")[:-1]).with_suffix(".py")


def _tree(node: ast.ClassDef) -> str:
    """The tree as text that is the same in every version of Python: fields that are empty are left out."""
    return repr(_plain(node))


def _plain(value: object) -> object:
    if isinstance(value, ast.AST):
        fields = [(name, _plain(item)) for name, item in ast.iter_fields(value) if item not in (None, [])]
        return (type(value).__name__, fields)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
