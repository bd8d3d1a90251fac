"""The JSON schema of a lesion table written as JSON."""

from __future__ import annotations

from typing import Any

from medseg.core.column import Column
from medseg.core.columns_context import TOTALS
from medseg.core.table import COLUMNS, LesionTable

__all__ = ["table_schema"]

_TYPES = {"text": "string", "integer": "integer", "number": "number", "flag": "boolean"}


def table_schema() -> dict[str, Any]:
    """Schema (JSON Schema 2020-12) of what `medseg measure -o lesions.json` writes.

    Columns of `medseg.core.table.COLUMNS` are in every row unless others were chosen; those of further channels and
    textures may follow. A total is null where the columns that it needs were not chosen.

    Examples
    --------
    >>> rows = table_schema()["properties"]["rows"]
    >>> rows["items"]["properties"]["volume_ml"]["type"], rows["items"]["properties"]["organ"]["type"]
    ('number', ['string', 'null'])
    """
    described = {name: {"type": "string"} for name in ("name", "unit", "kind", "definition", "code", "null", "source")}
    organ = {"type": "object", "properties": {"n_lesions": {"type": "integer"}, "volume_ml": {"type": "number"}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Lesion table of medseg",
        "type": "object",
        "required": ["schema_version", "totals", "columns", "rows"],
        "properties": {
            "schema_version": {"const": LesionTable.schema_version},
            "totals": {
                "type": "object",
                "properties": {
                    **{column.name: _value(column, column.name != "n_lesions") for column in TOTALS},
                    "organs": {"type": "object", "additionalProperties": organ},
                },
            },
            "columns": {
                "type": "array",
                "items": {"type": "object", "required": list(described), "properties": described},
            },
            "rows": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["case_id", "lesion_id"],
                    "properties": {column.name: _value(column) for column in COLUMNS},
                    "additionalProperties": {"type": ["string", "integer", "number", "boolean", "null"]},
                },
            },
        },
    }


def _value(column: Column, may_be_null: bool = False) -> dict[str, Any]:
    kind = _TYPES[column.kind]
    value: dict[str, Any] = {"type": [kind, "null"] if may_be_null or column.null != "never" else kind}
    return {**value, "description": f"{column.definition} Unit: {column.unit}." if column.unit else column.definition}
