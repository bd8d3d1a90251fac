"""Errors: one tree, drawn in the docstring as it is in the code."""

from __future__ import annotations

import builtins
import re

import pytest

from medseg import errors
from medseg.errors import MedsegError

CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type)}


def _drawn() -> dict[str, tuple[str | None, str | None]]:
    """Each error of the docstring's tree: its parent there, and the builtin in parentheses."""
    drawn: dict[str, tuple[str | None, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    (?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: \((?P<builtin>\w+)\))?(?:\s{2,}\S|$)", line)
        if match:
            depth = len(match["branch"]) // 4
            path = [*path[:depth], match["name"]]
            drawn[match["name"]] = (path[-2] if depth else None, match["builtin"])
    return drawn


DRAWN = _drawn()


def test_tree_holds_every_error_and_no_other():
    assert set(DRAWN) == set(CLASSES)
    assert len(DRAWN) > 20, "the tree was not read"


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_error_has_the_parent_that_is_drawn(name: str):
    parent, _ = DRAWN[name]
    assert CLASSES[name].__bases__[0] is (CLASSES[parent] if parent else Exception)


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_error_is_a_medseg_error_and_the_builtin_that_is_drawn(name: str):
    _, builtin = DRAWN[name]
    assert issubclass(CLASSES[name], MedsegError)
    if builtin:
        assert issubclass(CLASSES[name], getattr(builtins, builtin))
    if len(CLASSES[name].__bases__) > 1:
        assert CLASSES[name].__bases__[1].__name__ == builtin


def test_all_is_sorted_and_complete():
    assert errors.__all__ == sorted(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_error_has_a_docstring_and_keeps_its_message(name: str):
    assert (CLASSES[name].__doc__ or "").endswith(".")
    assert str(CLASSES[name]("what is wrong")) == "what is wrong"


def test_exit_codes_tell_wrong_use_from_failure():
    codes = {name: error.exit_code for name, error in CLASSES.items()}
    assert set(codes.values()) == {1, 2}
    assert all(code == 2 for name, code in codes.items() if issubclass(CLASSES[name], errors.UsageError))
    assert codes["MedsegError"] == codes["UnreadableImage"] == codes["HashMismatch"] == 1


def test_caller_can_catch_by_builtin():
    with pytest.raises(FileNotFoundError):
        raise errors.ScanNotFound("nothing lies at scan.nii.gz")
    with pytest.raises(ValueError, match="unknown key"):
        raise errors.InvalidPlan("unknown key")
