"""Selection rules: what they select, and that nothing else can stand in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.batch.select import parse_rule, read_rule
from medseg.errors import UsageError

FIELDS = ("modality", "slices", "spacing_k_mm", "description")
CASE = {"modality": "PT", "slices": 41, "spacing_k_mm": 3.27, "description": "WB AC thorax"}
UNKNOWN = dict.fromkeys(FIELDS)


@pytest.mark.parametrize(
    ("rule", "is_selected", "unknown_is_selected"),
    [
        ("modality == 'PT' and slices > 40", True, False),
        ("slices > 41 or modality in ('CT', 'MR')", False, False),
        ("not slices < 40", True, True),
        ("1 < spacing_k_mm <= 3.27", True, False),
        ("'thorax' in description", True, False),
        ("'AC' not in description", False, False),
        ("modality == None", False, True),
        ("modality in ('PT', None)", True, True),
        ("slices != -1", True, True),
    ],
)
def test_rule_selects(rule: str, is_selected: bool, unknown_is_selected: bool) -> None:
    selects = parse_rule(rule, FIELDS)
    assert selects(CASE) is is_selected
    assert selects(UNKNOWN) is unknown_is_selected


@pytest.mark.parametrize(
    "rule",
    [
        "__import__('os').system('true')",
        "modality.upper() == 'PT'",
        "(lambda: 1)()",
        "[x for x in (1,)]",
        "modality is None",
        "patient == 'x'",
        "slices ** 9 > 1",
        "f'{slices}'",
        "modality ==",
        "",
        "(" * 500,
    ],
)
def test_anything_else_is_refused_with_the_rule_in_the_message(rule: str) -> None:
    with pytest.raises(UsageError, match="selection"):
        parse_rule(rule, FIELDS)


def test_text_against_a_number_is_said() -> None:
    with pytest.raises(UsageError, match="cannot be compared"):
        parse_rule("modality > 3", FIELDS)(CASE)


def test_every_rule_of_a_yaml_list_must_hold(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("- modality == 'PT'\n- slices > 40\n")
    rule = read_rule(str(file), FIELDS)
    assert rule(CASE)
    assert not rule({**CASE, "slices": 40})
    assert not rule({**CASE, "modality": "CT"})
    assert read_rule("slices > 40", FIELDS)(CASE)
    for text, words in (("slices > 40", "list of rules"), ("- slice > 1", "no field"), ("[", "cannot be read")):
        file.write_text(text)
        with pytest.raises(UsageError, match=words):
            read_rule(str(file), FIELDS)
    with pytest.raises(UsageError, match="cannot be read"):
        read_rule(str(tmp_path / "none.yaml"), FIELDS)
