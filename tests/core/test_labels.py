"""LabelScheme: class numbers from 1, named, sorted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from medseg.core.labels import BINARY_LESION, LabelScheme


def test_binary_scheme_names_one_class():
    assert BINARY_LESION.classes == {1: "lesion"}
    assert BINARY_LESION.highest == 1


def test_classes_are_sorted_by_number():
    scheme = LabelScheme(classes={3: "cyst", 1: "kidney", 2: "tumor"})
    assert list(scheme.classes) == [1, 2, 3]
    assert scheme.highest == 3


@pytest.mark.parametrize("classes", [{}, {0: "background"}, {-1: "a"}, {65536: "a"}])
def test_class_numbers_outside_1_to_65535_are_refused(classes):
    with pytest.raises(ValidationError, match=r"1\.\.65535"):
        LabelScheme(classes=classes)


def test_region_of_an_unknown_class_is_refused():
    with pytest.raises(ValidationError, match=r"'whole': \[4\]"):
        LabelScheme(classes={1: "core", 2: "edema"}, regions={"whole": (1, 2, 4)})


def test_unknown_field_is_refused():
    with pytest.raises(ValidationError):
        LabelScheme(classes={1: "a"}, colors={1: "red"})


def test_scheme_cannot_be_changed():
    with pytest.raises(ValidationError):
        BINARY_LESION.classes = {1: "other"}


@given(st.dictionaries(st.integers(1, 65535), st.text(max_size=8), min_size=1, max_size=5))
def test_scheme_round_trips_through_json(classes):
    scheme = LabelScheme(classes=classes, regions={"all": tuple(classes)})
    assert LabelScheme.model_validate_json(scheme.model_dump_json()) == scheme
