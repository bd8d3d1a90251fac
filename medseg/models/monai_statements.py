"""What a bundle runs before and beside its evaluator, and which of it matters not.

`initialize` and the run list are Python statements. Seeds, cuDNN switches, the loading of weights and the run itself
have their counterpart in medseg; anything else could change the network, and is refused without trust.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from medseg.models.monai_config import BundleConfig

__all__ = ["run_id", "unknown_statements"]

_HARMLESS = [
    re.compile(pattern)
    for pattern in (
        r"^\$?\s*(import|from)\s",
        r"^\$\s*None\s*$",
        r"^\$\s*setattr\(\s*torch\.backends\.cudnn\s*,[^()]*\)\s*$",
        r"^\$\s*(monai\.utils\.)?set_determinism\([^()]*\)\s*$",
        r"^\$\s*torch\.(manual_seed|set_num_threads|cuda\.manual_seed_all)\([^()]*\)\s*$",
        r"^\$\s*print\(.*\)\s*$",
        r"^\$\s*@[\w:#]+\.(eval|run)\(\)\s*$",
        r"^\$\s*@[\w:#]+\(@[\w:#]+\)(\s+if\s+@[\w:#]+\s+else\s+None)?\s*$",
        r"^\$\s*os\.makedirs\(@output_dir[^()]*\)\s*$",
    )
]
_RUNS = re.compile(r"@[\w:#]+\.run\(\)")
_BEFORE = "initialize"


def run_id(config: BundleConfig) -> str | None:
    """The key under which the bundle runs, "run" or any other; None where nothing runs."""
    keys = ["run", *(key for key in config.content if key != "run")]
    for key in keys:
        items = config.content.get(key)
        if isinstance(items, list) and any(isinstance(item, str) and _RUNS.search(item) for item in items):
            return key
    return None


def unknown_statements(config: BundleConfig) -> list[tuple[str, str]]:
    """(key, statement) of each that is not known to be harmless."""
    return [(key, text) for key, text in _statements(config) if not any(known.match(text) for known in _HARMLESS)]


def _statements(config: BundleConfig) -> Iterator[tuple[str, str]]:
    run = run_id(config)
    for key in (_BEFORE, *((run,) if run else ())):
        items = config.content.get(key)
        for number, item in enumerate(items if isinstance(items, list) else [items]):
            if isinstance(item, str) and item.startswith("$"):
                yield f"{key}::{number}", item
