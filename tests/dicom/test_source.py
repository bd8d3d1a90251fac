"""Decimal strings and derived identifiers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from medseg.dicom.source import decimal, derived_uid


@given(st.floats(-1e5, 1e5))
def test_a_decimal_string_fits_and_is_as_near_as_it_can_be(value: float) -> None:
    text = decimal(value)
    assert len(text) <= 16
    assert abs(float(text) - value) <= max(1e-9, 1e-9 * abs(value))


@given(st.integers(-(10**9), 10**9), st.integers(1, 6))
def test_what_a_decimal_string_said_it_says_again(digits: int, places: int) -> None:
    value = digits / 10**places
    assert float(decimal(value)) == value


@given(st.lists(st.text(), min_size=1, max_size=3), st.lists(st.text(), min_size=1, max_size=3))
def test_uids_are_valid_and_differ_where_their_parts_do(one: list[str], other: list[str]) -> None:
    uids = [derived_uid(*parts) for parts in (one, other)]
    assert all(len(uid) <= 64 and set(uid) <= set("0123456789.") for uid in uids)
    if "\0".join(one) != "\0".join(other):
        assert uids[0] != uids[1]
