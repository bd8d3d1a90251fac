from __future__ import annotations

import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import InvalidGeometry, MedsegError, UnreadableImage, UnsupportedDimensions
from medseg.io.metaimage import read_metaimage_header
from medseg.io.volume_files import read_volume_array
from tests.io.itk_images import TYPES, image_on, lps_affine, oblique_grids
from tests.io.text_headers import META_FIELDS, RAS_AFFINE, VOXELS, payload, write_meta


def test_voxels_lie_where_the_header_says(tmp_path):
    array, geometry, notes = read_volume_array(write_meta(tmp_path / "a.mha"))
    np.testing.assert_array_equal(array, VOXELS)
    np.testing.assert_array_equal(geometry.affine, RAS_AFFINE)
    assert notes == ()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("pixel", TYPES)
def test_files_by_simpleitk_are_read_alike(tmp_path, pixel, suffix, packed):
    image = image_on(TYPES[pixel])
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path), useCompression=packed)
    array, geometry, notes = read_volume_array(path)
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(image).T.astype(np.float32))
    np.testing.assert_allclose(geometry.affine, lps_affine(image), atol=1e-6)
    assert notes == ()
    assert len(read_metaimage_header(path).files) == (1 if suffix == ".mha" else 2)


@settings(deadline=None, max_examples=40)
@given(oblique_grids())
def test_oblique_and_flipped_grids_agree_with_simpleitk(tmp_path_factory, grid):
    path = tmp_path_factory.mktemp("oblique") / "a.mha"
    image = image_on(np.int16, *grid)
    sitk.WriteImage(image, str(path))
    np.testing.assert_allclose(read_metaimage_header(path).geometry.affine, lps_affine(image), atol=1e-6)


@pytest.mark.parametrize("field", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])
def test_big_endian_voxels_are_turned_as_by_simpleitk(tmp_path, field):
    fields = {"BinaryDataByteOrderMSB": None, field: "True"}
    path = write_meta(tmp_path / "a.mha", payload(VOXELS.astype(">i2")), **fields)
    np.testing.assert_array_equal(read_volume_array(path)[0], VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, VOXELS)


def test_long_has_four_bytes_as_in_itk(tmp_path):
    path = write_meta(tmp_path / "a.mha", payload(VOXELS.astype("<i4")), ElementType="MET_LONG")
    np.testing.assert_array_equal(read_volume_array(path)[0], VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, VOXELS)


@pytest.mark.parametrize(("size", "head"), [("7", b"x" * 7), ("-1", b"x" * 30)])
def test_header_of_the_voxel_file_is_skipped_as_by_simpleitk(tmp_path, size, head):
    (tmp_path / "a.raw").write_bytes(head + payload())
    path = write_meta(tmp_path / "a.mhd", b"", HeaderSize=size, ElementDataFile="a.raw")
    np.testing.assert_array_equal(read_volume_array(path)[0], VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, VOXELS)


def test_absent_axes_and_offset_are_the_standard_s_and_noted(tmp_path):
    path = write_meta(tmp_path / "a.mha", TransformMatrix=None, Offset=None)
    header = read_metaimage_header(path)
    assert header.notes == (
        "a.mha: no TransformMatrix; axes taken as the patient's",
        "a.mha: no Offset; taken as zero",
    )
    np.testing.assert_allclose(header.geometry.affine, lps_affine(sitk.ReadImage(str(path))), atol=1e-9)


def test_fourth_axis_of_one_is_dropped_with_a_note(tmp_path):
    path = write_meta(
        tmp_path / "a.mha",
        NDims="4",
        DimSize="3 4 5 1",
        ElementSpacing="1.5 2 3 1",
        Offset="-40 30 7.5 0",
        TransformMatrix="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
    )
    array, geometry, notes = read_volume_array(path)
    np.testing.assert_array_equal(array, VOXELS)
    np.testing.assert_array_equal(geometry.affine, RAS_AFFINE)
    assert "dropped 1 single axes" in notes[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"ElementSpacing": None},
        {"ElementSpacing": "1 0 1"},
        {"ElementSpacing": "1 -2 1"},
        {"ElementSpacing": "1 nan 1"},
        {"ElementSpacing": "1 1"},
        {"TransformMatrix": "1 0 0 0 1 0 1 0 0"},
        {"TransformMatrix": "1 0 0 0 1 0 0 0 0"},
        {"TransformMatrix": "2 0 0 0 2 0 0 0 2"},
        {"TransformMatrix": "1 0 0 0 1 0 0 0 inf"},
        {"TransformMatrix": "1 0 0 1"},
        {"Offset": "1 2"},
        {"Offset": "x y z"},
        {"DistanceUnits": "um"},
    ],
)
def test_unusable_place_is_refused(tmp_path, fields):
    with pytest.raises(InvalidGeometry, match=r"a\.mha"):
        read_metaimage_header(write_meta(tmp_path / "a.mha", **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"NDims": "2", "DimSize": "12 5"},
        {"NDims": "4", "DimSize": "3 2 5 2"},
        {"NDims": "5", "DimSize": "3 4 5 1 1"},
        {"ElementNumberOfChannels": "3"},
        {"ElementType": "MET_SHORT_ARRAY"},
    ],
)
def test_other_than_one_volume_of_plain_numbers_is_refused(tmp_path, fields):
    with pytest.raises(UnsupportedDimensions, match=r"a\.mha"):
        read_metaimage_header(write_meta(tmp_path / "a.mha", payload() * 4, **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ObjectType": "Tube"}, "not an image"),
        ({"BinaryData": "False"}, "voxels as text"),
        ({"BinaryData": None}, "voxels as text"),
        ({"BinaryData": "maybe"}, "True or False"),
        ({"ElementType": "MET_STRING"}, "MET_STRING"),
        ({"ElementType": None}, "no field ElementType"),
        ({"NDims": None}, "no field NDims|not a MetaImage"),
        ({"DimSize": "3 4"}, "damaged MetaImage header: 3 dimensions of sizes"),
        ({"DimSize": "32767 32767 32767"}, "truncated: its header promises 70362301923326"),
        ({"DimSize": "9 9 9", "HeaderSize": "-1"}, "truncated"),
        ({"HeaderSize": "-2"}, "HeaderSize cannot be -2"),
        ({"HeaderSize": "12"}, "HeaderSize cannot be 12"),
        ({"HeaderSizePerSlice": "8"}, "between its slices"),
        ({"ElementToIntensityFunctionSlope": "2"}, "rescales its voxels"),
        ({"ElementDataFile": "LIST"}, "several files"),
        ({"ElementDataFile": "../a.raw"}, "only files in its own folder"),
        ({"ElementDataFile": ""}, "only files in its own folder"),
        ({"ElementDataFile": None}, "no field"),
        ({"CompressedData": "True", "HeaderSize": "7"}, "HeaderSize of 7"),
    ],
)
def test_damaged_or_foreign_headers_are_refused(tmp_path, fields, message):
    with pytest.raises(UnreadableImage, match=message):
        read_metaimage_header(write_meta(tmp_path / "a.mha", **fields))


def test_field_twice_is_refused(tmp_path):
    path = write_meta(tmp_path / "a.mha")
    path.write_bytes(path.read_bytes().replace(b"ElementType", b"DimSize = 5 4 3\nElementType"))
    with pytest.raises(UnreadableImage, match="two fields 'DimSize'"):
        read_metaimage_header(path)


def test_header_without_end_is_refused_in_bounded_memory(tmp_path):
    (tmp_path / "a.mha").write_bytes(b"NDims = 3\n" + b"Comment = x\n" * 1_000_000)
    with pytest.raises(UnreadableImage, match="no end within 4 MiB"):
        read_metaimage_header(tmp_path / "a.mha")


@pytest.mark.parametrize("damage", ["cut", "checksum", "garbage"])
def test_damaged_compressed_voxels_are_refused(tmp_path, damage):
    packed = zlib.compress(payload(np.random.default_rng(0).integers(0, 9999, (3, 4, 5)).astype("<i2")))
    data = {"cut": packed[:-9], "checksum": packed[:-4] + b"abcd", "garbage": b"x" * 90}[damage]
    path = write_meta(tmp_path / "a.mha", data, CompressedData="True")
    with pytest.raises(UnreadableImage, match="damaged"):
        read_volume_array(path)


def test_compressed_voxels_that_promise_too_little_are_refused(tmp_path):
    path = write_meta(tmp_path / "a.mha", zlib.compress(payload()[:-2]), CompressedData="True")
    with pytest.raises(UnreadableImage, match="truncated"):
        read_volume_array(path)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60), st.sampled_from(sorted(META_FIELDS)))
def test_any_text_in_a_field_gives_a_value_or_a_medseg_error(tmp_path_factory, text, name):
    path = tmp_path_factory.mktemp("text") / "a.mha"
    write_meta(path, **{name: text.encode("utf-8", "replace").decode()})
    told = "a.mha"
    try:
        read_metaimage_header(path)
    except MedsegError as error:
        told = str(error)
    assert "a.mha" in told
