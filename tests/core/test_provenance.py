"""Provenance: versions of what can change a number."""

from __future__ import annotations

import platform
from importlib.metadata import version

import pytest
from pydantic import ValidationError

from medseg.core.provenance import Provenance, installed_versions

PROVENANCE = Provenance(
    model_name="m",
    weights_sha256="a" * 64,
    plan_sha256="b" * 64,
    inputs_sha256=("c" * 64,),
    device="cpu",
    engine="torch",
    precision="float32",
    versions={"python": "3.11"},
    notes=("NaN filled with 0",),
)


def test_versions_are_those_that_run():
    versions = installed_versions()
    assert versions["python"] == platform.python_version()
    assert versions["numpy"] == version("numpy")
    assert all(isinstance(number, str) and number for number in versions.values())


def test_absent_packages_are_left_out(monkeypatch):
    monkeypatch.setattr("medseg.core.provenance._PACKAGES", ("numpy", "no-such-package-of-any-name"))
    assert set(installed_versions()) == {"python", "numpy"}


def test_provenance_round_trips_through_json():
    assert Provenance.model_validate_json(PROVENANCE.model_dump_json()) == PROVENANCE


def test_provenance_cannot_be_changed_or_extended():
    with pytest.raises(ValidationError, match="frozen"):
        PROVENANCE.device = "cuda"
    with pytest.raises(ValidationError, match="Extra inputs"):
        Provenance(**PROVENANCE.model_dump(), patient="x")
