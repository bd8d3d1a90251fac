"""The JSON schema says what a written table holds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medseg.core.geometry import Geometry
from medseg.core.lesions import Lesion, LesionMap
from medseg.core.table_schema import table_schema
from medseg.core.volume import Volume
from medseg.io.tables import write_table
from medseg.lesions.measure import measure_lesions

KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict, "array": list}


def broken(value, schema, place="table") -> list[str]:
    """Where a document breaks the few keywords that the schema uses."""
    if "const" in schema:
        return [] if value == schema["const"] else [f"{place}: {value!r}"]
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if value is None:
        return [] if "null" in types else [f"{place} is null"]
    is_flag = isinstance(value, bool)
    if not any(isinstance(value, KINDS[t]) and (not is_flag or t == "boolean") for t in types if t != "null"):
        return [f"{place}: {value!r} is no {types}"]
    if isinstance(value, dict):
        missing = [f"{place} lacks {name}" for name in schema.get("required", ()) if name not in value]
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        parts = ((name, known.get(name, others)) for name in value)
        return missing + [e for name, s in parts if s for e in broken(value[name], s, f"{place}.{name}")]
    if isinstance(value, list):
        return [e for n, item in enumerate(value) for e in broken(item, schema["items"], f"{place}[{n}]")]
    return []


@pytest.mark.parametrize("with_scan", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 4, 3)])
def test_a_written_table_keeps_to_the_schema(tmp_path, with_scan, shape):
    grid = Geometry(shape, np.diag([0.8, 0.8, 3.0, 1.0]))
    lesions = LesionMap(np.ones(shape, np.uint16), grid, (Lesion("lesion"),))
    volume = Volume(np.ones((2, *shape)), grid, ("pet", "ct"), units=("suv", "stored")) if with_scan else None
    write_table(measure_lesions(lesions, volume), tmp_path / "t.json")
    assert broken(json.loads((tmp_path / "t.json").read_text()), table_schema()) == []


def test_a_broken_table_does_not():
    assert broken({"schema_version": 1, "totals": {}, "columns": [], "rows": [{"volume_ml": "1"}]}, table_schema())
