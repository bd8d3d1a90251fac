"""Damaged headers of every format: a value or a `MedsegError`, never anything else.

The long run is `benchmarks/fuzz_reading.py`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medseg.errors import MedsegError
from medseg.io.scan import load_volume, read_scan
from tests.io.nifti_files import save
from tests.io.text_headers import VOXELS, payload, write_meta, write_nrrd

FORMATS: dict[str, Callable[[Path], Path]] = {
    "a.nii": lambda path: save(VOXELS, path),
    "a.nii.gz": lambda path: save(VOXELS, path),
    "a.nrrd": write_nrrd,
    "b.nrrd": lambda path: write_nrrd(path, gzip.compress(payload()), encoding="gzip"),
    "a.mha": write_meta,
    "b.mha": lambda path: write_meta(path, zlib.compress(payload()), CompressedData="True"),
}
TELLING = (
    b"\0\0",
    b"\xff\xff",
    b"\x7f\xff",
    b"\0\0\xc0\x7f",
    b"\0\0\x80\x7f",
    b"-1",
    b"nan",
    b"\n\n",
    b"=",
    b": ",
    b"9" * 30,
)


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """Edits: what to do, where (as a share of the file), with which bytes."""
    edit = st.tuples(
        st.sampled_from(["overwrite", "insert", "remove", "cut", "flip"]),
        st.floats(0, 1),
        st.sampled_from(TELLING) | st.binary(min_size=1, max_size=12),
    )
    return draw(st.lists(edit, min_size=1, max_size=4))


def damaged(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    changed = bytearray(data)
    for what, where, new in edits:
        start = int(where * len(changed))
        if what == "overwrite":
            changed[start : start + len(new)] = new
        elif what == "insert":
            changed[start:start] = new
        elif what == "remove":
            del changed[start : start + len(new)]
        elif what == "cut":
            del changed[start:]
        elif start < len(changed):
            changed[start] ^= new[0] or 1
    return bytes(changed)


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=10_000, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=damages())
def test_damaged_file_gives_a_volume_or_a_medseg_error(tmp_path, name, edits):
    valid = tmp_path / f"valid-{name}"
    if not valid.exists():
        FORMATS[name](valid)
    path = tmp_path / name
    path.write_bytes(damaged(valid.read_bytes(), edits))
    told = name
    try:
        volume = load_volume(read_scan(path))
    except MedsegError as error:
        told = str(error)
    else:
        assert np.isfinite(volume.array).all()
    assert name in told or "a: " in told or "b: " in told
