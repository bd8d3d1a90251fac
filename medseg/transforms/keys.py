"""The keys of every dictionary that goes through a MONAI Compose in medseg."""

from __future__ import annotations

__all__ = ["IMAGE", "LABEL", "VOLUME"]

IMAGE = "image"
LABEL = "label"
VOLUME = "volume"
