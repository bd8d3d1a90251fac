from __future__ import annotations

import bz2
import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import InvalidGeometry, MedsegError, ScanNotFound, UnreadableImage, UnsupportedDimensions
from medseg.io.nrrd import read_nrrd_header
from medseg.io.volume_files import read_volume_array
from tests.io.itk_images import TYPES, image_on, lps_affine, oblique_grids
from tests.io.text_headers import RAS_AFFINE, VOXELS, payload, write_nrrd


def test_voxels_lie_where_the_header_says(tmp_path):
    array, geometry, notes = read_volume_array(write_nrrd(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(array, VOXELS)
    np.testing.assert_array_equal(geometry.affine, RAS_AFFINE)
    assert notes == ()


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("LAS", (-1, 1, 1)),
        ("Left-Posterior-Superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
    ],
)
def test_every_patient_space_becomes_ras(tmp_path, space, signs):
    path = write_nrrd(
        tmp_path / "a.nrrd", space=space, space_directions="(1,0.5,0) (0,2,0) (0,0,3)", space_origin="(1,2,3)"
    )
    expected = np.array([[1, 0, 0, 1], [0.5, 2, 0, 2], [0, 0, 3, 3]]) * np.array(signs)[:, None]
    affine = read_nrrd_header(path).geometry.affine
    np.testing.assert_array_equal(affine[:3], expected)
    seen = sitk.ReadImage(str(path)) if "-" in space else None
    if seen is not None:
        np.testing.assert_allclose(affine[:3, 3], np.array([-1, -1, 1]) * seen.GetOrigin(), atol=1e-6)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
@pytest.mark.parametrize("pixel", TYPES)
def test_files_by_simpleitk_are_read_alike(tmp_path, pixel, suffix, packed):
    image = image_on(TYPES[pixel])
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path), useCompression=packed)
    array, geometry, _ = read_volume_array(path)
    assert len(read_nrrd_header(path).files) == (1 if suffix == ".nrrd" else 2)
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(image).T.astype(np.float32))
    np.testing.assert_allclose(geometry.affine, lps_affine(image), atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(oblique_grids())
def test_oblique_and_flipped_grids_agree_with_simpleitk(tmp_path_factory, grid):
    path = tmp_path_factory.mktemp("oblique") / "a.nrrd"
    image = image_on(np.int16, *grid)
    sitk.WriteImage(image, str(path))
    np.testing.assert_allclose(read_nrrd_header(path).geometry.affine, lps_affine(image), atol=1e-6)


def test_big_endian_voxels_are_turned(tmp_path):
    path = write_nrrd(tmp_path / "a.nrrd", payload(VOXELS.astype(">i2")), endian="big")
    np.testing.assert_array_equal(read_volume_array(path)[0], VOXELS)


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("gz", gzip.compress), ("bzip2", bz2.compress)]
)
@pytest.mark.parametrize("detached", [False, True])
def test_packed_voxels_are_unpacked(tmp_path, encoding, pack, detached):
    if detached:
        (tmp_path / "a b.raw.gz").write_bytes(pack(payload()))
        path = write_nrrd(tmp_path / "a.nhdr", b"", encoding=encoding, data_file="a b.raw.gz")
    else:
        path = write_nrrd(tmp_path / "a.nrrd", pack(payload()), encoding=encoding)
    np.testing.assert_array_equal(read_volume_array(path)[0], VOXELS)


@pytest.mark.parametrize(("skip", "head"), [("7", b"x" * 7), ("-1", b"x" * 30)])
def test_bytes_before_the_voxels_are_skipped(tmp_path, skip, head):
    (tmp_path / "a.raw").write_bytes(head + payload())
    path = write_nrrd(tmp_path / "a.nhdr", b"", byte_skip=skip, data_file="a.raw")
    np.testing.assert_array_equal(read_volume_array(path)[0], VOXELS)


def test_bytes_before_packed_voxels_are_skipped_after_unpacking(tmp_path):
    path = write_nrrd(tmp_path / "a.nrrd", gzip.compress(b"x" * 7 + payload()), encoding="gzip", byte_skip="7")
    np.testing.assert_array_equal(read_volume_array(path)[0], VOXELS)


def test_windows_line_ends_comments_and_key_values_are_passed_over(tmp_path):
    path = write_nrrd(tmp_path / "a.nrrd", b"")
    text = path.read_text().replace("dimension", "# note\nname:=a: b\ndimension").replace("\n", "\r\n")
    path.write_bytes(text.encode() + payload())
    np.testing.assert_array_equal(read_volume_array(path)[0], VOXELS)


@pytest.mark.parametrize(
    ("sizes", "directions"),
    [
        ("3 4 5 1", "(1.5,0,0) (0,2,0) (0,0,3) none"),
        ("1 3 4 5", "none (1.5,0,0) (0,2,0) (0,0,3)"),
    ],
)
def test_fourth_axis_of_one_is_dropped_with_a_note(tmp_path, sizes, directions):
    path = write_nrrd(tmp_path / "a.nrrd", dimension="4", sizes=sizes, space_directions=directions, kinds=None)
    array, _, notes = read_volume_array(path)
    np.testing.assert_array_equal(array, VOXELS)
    assert len(notes) == 1
    assert "dropped 1 single axes" in notes[0]


@pytest.mark.parametrize("field", ["space", "space_directions", "space_origin"])
def test_file_that_does_not_say_where_it_lies_is_refused(tmp_path, field):
    path = write_nrrd(tmp_path / "a.nrrd", **{field: None})
    with pytest.raises(
        InvalidGeometry, match=rf"a\.nrrd does not say where it lies: no field '{field.replace('_', ' ')}'"
    ):
        read_nrrd_header(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"space": "scanner-xyz"},
        {"space": "left-posterior-superior-time"},
        {"space_units": '"m" "m" "m"'},
        {"space_directions": "(1,0,0) (0,2,0) (0,0,0)"},
        {"space_directions": "(1,0,0) (0,2,0) (1,2,0)"},
        {"space_directions": "(1,0,0) (0,2,0) (0,0,nan)"},
        {"space_directions": "(1,0,0) (0,2,0) (0,0,inf)"},
        {"space_directions": "(1,0,0) (0,2,0)"},
        {"space_directions": "(1,0) (0,2) (0,1)"},
        {"space_directions": "(1,0,0 (0,2,0) (0,0,3)"},
        {"space_origin": "(0,0)"},
        {"space_origin": "none"},
        {"space_origin": "(0,0,x)"},
    ],
)
def test_unusable_place_is_refused(tmp_path, fields):
    path = write_nrrd(tmp_path / "a.nrrd", **fields)
    with pytest.raises(InvalidGeometry, match=r"a\.nrrd"):
        read_nrrd_header(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"dimension": "2", "sizes": "3 4", "space_directions": "(1,0,0) (0,1,0)"},
        {"dimension": "4", "sizes": "3 4 5 2", "space_directions": "(1,0,0) (0,2,0) (0,0,3) none", "kinds": None},
        {"dimension": "4", "sizes": "3 3 4 5", "space_directions": "none (1,0,0) (0,2,0) (0,0,3)", "kinds": None},
        {"kinds": "vector domain domain"},
        {"kinds": "RGB-color domain domain"},
    ],
)
def test_other_than_one_volume_of_plain_numbers_is_refused(tmp_path, fields):
    path = write_nrrd(tmp_path / "a.nrrd", payload() * 4, **fields)
    with pytest.raises(UnsupportedDimensions, match=r"a\.nrrd"):
        read_nrrd_header(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoding": "ascii"}, "encoding 'ascii'"),
        ({"encoding": "hex"}, "encoding 'hex'"),
        ({"type": "block"}, "type 'block'"),
        ({"data_file": "LIST\na1.raw\na2.raw"}, r"several files \('LIST'\)"),
        ({"data_file": "LIST 2\na1.raw"}, "several files"),
        ({"endian": None}, "no field 'endian'"),
        ({"endian": "middle"}, "endian"),
        ({"sizes": "3 4"}, "damaged NRRD header: 3 dimensions of sizes"),
        ({"sizes": "3 4 5.5"}, "the field 'sizes' must be whole numbers"),
        ({"sizes": "32767 32767 32767"}, "truncated: its header promises 70362301923326"),
        ({"sizes": "3 4 6"}, "truncated: its header promises 144"),
        ({"dimension": "99"}, "dimensions"),
        ({"line_skip": "3"}, "skips lines"),
        ({"byte_skip": "-7"}, "cannot skip"),
        ({"byte_skip": "9" * 29}, "cannot skip"),
    ],
)
def test_damaged_or_foreign_headers_are_refused(tmp_path, fields, message):
    path = write_nrrd(tmp_path / "a.nrrd", **fields)
    with pytest.raises(UnreadableImage, match=message):
        read_nrrd_header(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.raw", "sub/../../a.raw", "..\\a.raw", "C:\\a.raw", "link.raw"])
def test_voxels_outside_of_the_header_s_folder_are_refused(tmp_path, name):
    (tmp_path / "a.raw").write_bytes(payload())
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "link.raw").symlink_to(tmp_path / "a.raw")
    path = write_nrrd(tmp_path / "case" / "a.nhdr", b"", data_file=name)
    with pytest.raises(UnreadableImage, match=r"only files in its own folder|leads out of its folder"):
        read_nrrd_header(path)


def test_missing_voxel_file_is_named(tmp_path):
    with pytest.raises(ScanNotFound, match=r"b\.raw does not exist"):
        read_nrrd_header(write_nrrd(tmp_path / "a.nhdr", b"", data_file="b.raw"))


def test_field_twice_is_refused(tmp_path):
    path = write_nrrd(tmp_path / "a.nrrd")
    path.write_bytes(path.read_bytes().replace(b"kinds", b"sizes: 5 4 3\nkinds"))
    with pytest.raises(UnreadableImage, match="two fields 'sizes'"):
        read_nrrd_header(path)


def test_header_without_end_is_refused_in_bounded_memory(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0005\n" + b"# x\n" * 2_000_000)
    with pytest.raises(UnreadableImage, match="does not end within 4 MiB"):
        read_nrrd_header(tmp_path / "a.nrrd")


@pytest.mark.parametrize("cut", [1, 8, 30])
def test_truncated_or_damaged_packed_voxels_are_refused(tmp_path, cut):
    noise = np.random.default_rng(0).integers(0, 9999, (3, 4, 5)).astype("<i2")
    path = write_nrrd(tmp_path / "a.nrrd", gzip.compress(payload(noise))[:-cut], encoding="gzip")
    with pytest.raises(UnreadableImage, match="damaged"):
        read_volume_array(path)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60), st.integers(0, 8))
def test_any_text_in_a_field_gives_a_value_or_a_medseg_error(tmp_path_factory, text, n):
    path = write_nrrd(tmp_path_factory.mktemp("text") / "a.nrrd")
    lines = path.read_bytes().split(b"\n")
    name = lines[n + 1].partition(b":")[0]
    lines[n + 1] = name + b": " + text.encode("utf-8", "surrogatepass")
    path.write_bytes(b"\n".join(lines))
    told = "a.nrrd"
    try:
        read_nrrd_header(path)
    except MedsegError as error:
        told = str(error)
    assert "a.nrrd" in told
