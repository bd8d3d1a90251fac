"""A TorchScript file read as data: its weights and the texts beside them, without running its program.

The file is a zip whose `data.pkl` names tensors by number. Only what tensors need is unpickled; every other class, the
modules of the program among them, becomes a bag of its attributes.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from medseg.errors import InvalidBundle

__all__ = ["is_torchscript", "read_script_texts", "read_script_weights"]

_LARGEST_TEXT = 2**24
_DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, by content."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)


def read_script_texts(path: Path) -> dict[str, str]:
    """File name to text of what lies under `extra/` ("metadata.json", "inference.json").

    Raises
    ------
    InvalidBundle
        If the file is damaged, or a text is too large to be one.
    """
    texts: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                _, inside, name = entry.filename.partition("/extra/")
                if inside and name and entry.file_size <= _LARGEST_TEXT:
                    texts[name] = archive.read(entry).decode()
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, RuntimeError) as error:
        raise InvalidBundle(f"{path}: a damaged TorchScript file ({error})") from error
    return texts


def read_script_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a TorchScript module: names of parameters and buffers to tensors.

    Raises
    ------
    InvalidBundle
        If the file is no TorchScript, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
            with archive.open(f"{root}data.pkl") as stream:
                module = _Unpickler(stream, archive, root).load()
    except StopIteration:
        raise InvalidBundle(f"{path}: no TorchScript file") from None
    except Exception as error:  # unpickling damaged data raises almost anything
        raise InvalidBundle(f"{path}: a damaged TorchScript file ({type(error).__name__}: {error})") from error
    return dict(_tensors(module, ""))


class _Bag:
    """Any object of the program: only its attributes."""

    def __init__(self, *_: Any) -> None:
        self.attributes: Mapping[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, Mapping) else {}


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(stream)
        self._archive, self._root = archive, root
        self._storages: dict[str, torch.UntypedStorage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle":
            return lambda value, *_: value  # lists and dictionaries with a type
        return _Bag  # whatever it is, it is not looked up

    def persistent_load(self, pid: Any) -> tuple[torch.UntypedStorage, torch.dtype]:
        _, dtype, key, *_ = pid
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}data/{key}"))
            whole = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
            self._storages[key] = whole.untyped_storage()
        return self._storages[key], dtype


def _rebuild_tensor(
    storage: tuple[torch.UntypedStorage, torch.dtype], offset: int, size: Any, stride: Any, *_: Any
) -> Any:
    data, dtype = storage
    tensor = torch.empty(0, dtype=dtype)
    return tensor.set_(data, offset, tuple(size), tuple(stride))


def _tensors(module: Any, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(module, _Bag):
        for name, value in module.attributes.items():
            if isinstance(value, torch.Tensor):
                yield f"{prefix}{name}", value
            else:
                yield from _tensors(value, f"{prefix}{name}.")
