"""What was found fastest on this machine, kept in a file, so that the next run takes the same without measuring.

The file is `engines.json` in the user's cache folder. A choice holds for one machine, number of threads, version of the
runtimes, network with its weights, window and request; its key is the hash of all of these. A file that cannot be read
counts as empty, one that cannot be written is left.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from medseg.errors import OutputNotWritable
from medseg.inference.candidates import Candidate
from medseg.io.json_files import write_json

__all__ = ["Choice", "choice_key", "choices_path", "recall", "remember"]

logger = logging.getLogger(__name__)

_SCHEMA = 7  # raised when candidates or the way they are measured change
_MOST_CHOICES = 200
_ADDRESS = re.compile(r"0x[0-9a-f]+")


class Choice(BaseModel):
    """What a warm-up found.

    Parameters
    ----------
    candidate
        The fastest for a scan, start included, of those that agreed with plain torch.
    seconds_per_window
        Wall time of one window of the asked size.
    notes
        Which candidates were left out, and why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    candidate: Candidate
    seconds_per_window: float = Field(gt=0)
    notes: tuple[str, ...] = ()


def choices_path() -> Path:
    """Where choices are kept: `$XDG_CACHE_HOME/medseg/engines.json`, else under ~/.cache."""
    folder = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(folder) if Path(folder).is_absolute() else Path.home() / ".cache") / "medseg" / "engines.json"


def choice_key(network: nn.Module, window: tuple[int, ...], request: str) -> str:
    """Hexadecimal hash of everything that a choice depends on.

    Parameters
    ----------
    network
        With its weights.
    window
        (C, I, J, K).
    request
        What was asked for, and what stands to choose from.
    """
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    circumstances = {
        "schema": _SCHEMA,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "versions": [_version(package) for package in ("torch", "openvino", "numba", "medseg")],
        "network": _ADDRESS.sub("", repr(network)),
        "weights": digest.hexdigest(),
        "window": window,
        "request": request,
    }
    return hashlib.sha256(json.dumps(circumstances, sort_keys=True).encode()).hexdigest()


def recall(key: str) -> Choice | None:
    """The choice under a key; None where there is none, or none that can be read."""
    try:
        return Choice.model_validate(_read().get(key))
    except ValidationError:
        return None


def remember(key: str, choice: Choice) -> Choice:
    """Keep a choice, unless another run was faster in keeping its own; returns the one that holds."""
    earlier = recall(key)
    if earlier is not None:
        return earlier
    choices = {**_read(), key: choice.model_dump(mode="json")}
    newest = dict(list(choices.items())[-_MOST_CHOICES:])
    try:
        write_json({"schema": _SCHEMA, "choices": newest}, choices_path())
    except (OutputNotWritable, OSError) as error:
        logger.warning("the choice of engine is measured anew in each run: %s", error)
    return choice


def _read() -> dict[str, object]:
    try:
        content = json.loads(choices_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    choices = content.get("choices") if isinstance(content, dict) and content.get("schema") == _SCHEMA else None
    return choices if isinstance(choices, dict) else {}


def _processor() -> str:
    """Model and instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features")
    return "; ".join(line for line in lines if line.split("\t")[0].strip() in wanted) or platform.machine()


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"
