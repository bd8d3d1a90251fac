"""The bundles that come with medseg, found by name from anywhere."""

from __future__ import annotations

from pathlib import Path

from medseg.errors import UnknownModel

__all__ = ["find_model", "shipped_bundles"]

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped_bundles() -> dict[str, Path]:
    """Name to folder of every shipped bundle: inside the installed package, or in `bundles/` of a checkout."""
    found: dict[str, Path] = {}
    for home in (_PACKAGE.parent / "bundles", _PACKAGE / "bundles"):
        if home.is_dir():
            found.update({folder.name: folder for folder in sorted(home.iterdir()) if (folder / "configs").is_dir()})
    return found


def find_model(model: str | Path) -> Path:
    """The folder behind a path or the name of a shipped bundle; a path that exists wins.

    Raises
    ------
    UnknownModel
        If it is neither.
    """
    path = Path(model)
    if path.exists():
        return path
    shipped = shipped_bundles()
    if str(model) in shipped:
        return shipped[str(model)]
    raise UnknownModel(
        f"no model {str(model)!r}: neither a path that exists nor a shipped bundle; "
        f"shipped are: {', '.join(sorted(shipped)) or 'none'}"
    )
