"""Weights load without running code, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from medseg.errors import InvalidBundle
from medseg.networks.build import build_network
from medseg.networks.checkpoint import load_weights, read_state_dict, weights_sha256
from tests.plans import tiny_plan


class Malicious:
    """Unpickling this would make a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.folder,)


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    state = build_network(tiny_plan()).state_dict()
    torch.save(state, tmp_path / "model.pt")
    read = read_state_dict(tmp_path / "model.pt")
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name]) for name in state)
    load_weights(build_network(tiny_plan()), read, tmp_path / "model.pt")


def test_code_in_a_weights_file_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save({"weight": torch.zeros(1), "code": Malicious(str(trap))}, tmp_path / "model.pt")
    with pytest.raises(InvalidBundle, match="without running code"):
        read_state_dict(tmp_path / "model.pt")
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 truncated"])
def test_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InvalidBundle, match=r"model\.pt"):
        read_state_dict(tmp_path / "model.pt")


def test_missing_file_and_wrong_content_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidBundle, match="no weights file"):
        read_state_dict(tmp_path / "absent.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(InvalidBundle, match="got list"):
        read_state_dict(tmp_path / "list.pt")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = build_network(tiny_plan(n_channels=2)).state_dict()
    with pytest.raises(InvalidBundle, match="do not fit"):
        load_weights(build_network(tiny_plan()), other, tmp_path / "model.pt")


def test_hash_is_sha256_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert weights_sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
