"""Columns that follow from a lesion's voxels alone: size, diameters, surface, axes, position, quality."""

from __future__ import annotations

from medseg.core.column import Column

__all__ = ["DIAMETERS", "POSITION", "QUALITY", "SHAPE", "SIZE"]

_IBSI = "IBSI (Zwanenburg 2020)"
_RECIST = "RECIST 1.1 (Eisenhauer 2009)"
_ONE_VOXEL = "the voxel centers lie in one plane, line or point"
_NO_PROBABILITY = "no probability map"

SIZE = (
    Column("n_voxels", "integer", "voxels", "Number of voxels."),
    Column(
        "volume_ml",
        "number",
        "ml",
        "Number of voxels times the volume of one voxel.",
        "IBSI YEKZ; SCT 118565006; DCM 126030",
        source=_IBSI,
        is_key=True,
    ),
    Column("mesh_volume_ml", "number", "ml", "Volume enclosed by the triangle mesh.", "IBSI RNU0", source=_IBSI),
    Column(
        "partial_volume_ml",
        "number",
        "ml",
        "Sum of the probability over the lesion and the background voxels that touch it, times one voxel's volume.",
        null=_NO_PROBABILITY,
    ),
    Column(
        "partial_volume_std_ml",
        "number",
        "ml",
        "Standard deviation of it for independent voxels: the root of the sum of p (1 - p), times one voxel.",
        null=_NO_PROBABILITY,
    ),
    Column("equivalent_diameter_mm", "number", "mm", "Diameter of the ball of the same voxel volume."),
    Column("n_slices", "integer", "", "Number of axial slices with lesion in them."),
    Column(
        "axial_extent_mm",
        "number",
        "mm",
        "From the outer face of the first slice with lesion to that of the last, across the slices.",
    ),
    Column("largest_slice", "integer", "voxel", "Index of the axial slice with most lesion, the lowest of equals."),
    Column("largest_slice_area_mm2", "number", "mm2", "Area of the lesion in that slice."),
)


def _ends(of: str, what: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            f"{of}_{end}_{axis}_lps_mm",
            "number",
            "mm",
            f"{end.capitalize()} of the {what}, patient {direction} (DICOM, LPS).",
        )
        for end in ("start", "end")
        for axis, direction in zip("xyz", ("left", "posterior", "superior"), strict=True)
    )


DIAMETERS = (
    Column(
        "longest_diameter_mm",
        "number",
        "mm",
        "Longest chord within one axial slice, over all axial slices (RECIST 1.1 longest diameter).",
        "SCT 103339001; DCM 126081",
        source=_RECIST,
        is_key=True,
    ),
    Column(
        "perpendicular_diameter_mm",
        "number",
        "mm",
        "Longest chord perpendicular to the longest diameter, in the same slice (RECIST 1.1 short axis).",
        "SCT 103340004; SCT 131189007",
        source=_RECIST,
        is_key=True,
    ),
    Column(
        "who_product_mm2",
        "number",
        "mm2",
        "Longest times perpendicular diameter.",
        "DCM 112029",
        source="WHO handbook 1979",
    ),
    Column(
        "largest_product_mm2",
        "number",
        "mm2",
        "Largest product, over all axial slices, of the longest chord of a slice and the longest chord perpendicular "
        "to it (Lugano PPD).",
        source="Lugano (Cheson 2014)",
    ),
    Column("diameter_slice", "integer", "voxel", "Index of the axial slice that the longest diameter lies in."),
    *_ends("longest", "longest diameter"),
    *_ends("perpendicular", "perpendicular diameter"),
    Column(
        "feret_diameter_mm",
        "number",
        "mm",
        "Longest distance in space between two points of the edge, each put a quarter of a voxel outside the outermost "
        "centers.",
        "SCT 81827009",
    ),
    Column(
        "mesh_diameter_mm",
        "number",
        "mm",
        "Longest distance in space between two corners of the triangle mesh.",
        "IBSI L0JK",
        source=_IBSI,
    ),
)

SHAPE = (
    Column(
        "crofton_area_mm2",
        "number",
        "mm2",
        "Surface area by Crofton's formula: crossings of the surface counted along lines in many directions.",
        source="Lehmann and Legland 2012",
    ),
    Column(
        "crofton_sphericity",
        "number",
        "",
        "Area of the ball of the same voxel volume over the Crofton area; 1 for a ball.",
    ),
    Column("crofton_area_per_volume_per_mm", "number", "1/mm", "Crofton area over voxel volume."),
    Column("mesh_area_mm2", "number", "mm2", "Area of the triangle mesh.", "IBSI C0JK", source=_IBSI),
    Column("mesh_area_per_volume_per_mm", "number", "1/mm", "Mesh area over mesh volume.", "IBSI 2PR5", source=_IBSI),
    Column("sphericity", "number", "", "(36 pi V^2)^(1/3) / A of the mesh.", "IBSI QCFX", source=_IBSI),
    Column("compactness_1", "number", "", "V / (sqrt(pi) A^(3/2)) of the mesh.", "IBSI SKGS", source=_IBSI),
    Column("compactness_2", "number", "", "36 pi V^2 / A^3 of the mesh.", "IBSI BQWJ", source=_IBSI),
    Column("spherical_disproportion", "number", "", "A / (36 pi V^2)^(1/3) of the mesh.", "IBSI KRCK", source=_IBSI),
    Column("asphericity", "number", "", "(A^3 / (36 pi V^2))^(1/3) - 1 of the mesh.", "IBSI 25C7", source=_IBSI),
    Column(
        "major_axis_mm",
        "number",
        "mm",
        "Four times the root of the largest eigenvalue of the covariance of the voxel centers (which divides by their "
        "number less one).",
        "IBSI TDIC",
        "one voxel",
        _IBSI,
    ),
    Column("minor_axis_mm", "number", "mm", "The same of the second eigenvalue.", "IBSI P9VJ", "one voxel", _IBSI),
    Column("least_axis_mm", "number", "mm", "The same of the smallest eigenvalue.", "IBSI 7J51", "one voxel", _IBSI),
    Column(
        "elongation",
        "number",
        "",
        "Root of the second over the largest eigenvalue; 1 is not elongated.",
        "IBSI Q3CK",
        "one voxel",
        _IBSI,
    ),
    Column(
        "flatness",
        "number",
        "",
        "Root of the smallest over the largest eigenvalue; 1 is not flat.",
        "IBSI N17B",
        "one voxel",
        _IBSI,
    ),
    Column(
        "ellipsoid_major_axis_mm",
        "number",
        "mm",
        "Longest axis of the solid ellipsoid of the same second moments, each voxel counted as a solid box.",
    ),
    Column("ellipsoid_minor_axis_mm", "number", "mm", "Its second axis."),
    Column("ellipsoid_least_axis_mm", "number", "mm", "Its shortest axis."),
    Column(
        "volume_density_box",
        "number",
        "",
        "Mesh volume over that of the box around the mesh, along the array axes.",
        "IBSI PBX1",
        source=_IBSI,
    ),
    Column("area_density_box", "number", "", "Mesh area over that of the box.", "IBSI R59B", source=_IBSI),
    Column(
        "volume_density_ellipsoid",
        "number",
        "",
        "Mesh volume over that of the ellipsoid with the three axes above.",
        "IBSI 6BDE",
        _ONE_VOXEL,
        _IBSI,
    ),
    Column(
        "area_density_ellipsoid",
        "number",
        "",
        "Mesh area over that of the ellipsoid with the three axes above.",
        "IBSI RDD2",
        _ONE_VOXEL,
        _IBSI,
    ),
    Column(
        "volume_density_hull",
        "number",
        "",
        "Mesh volume over that of its convex hull.",
        "IBSI R3ER",
        source=_IBSI,
    ),
    Column(
        "area_density_hull",
        "number",
        "",
        "Mesh area over that of its convex hull.",
        "IBSI 7T7F",
        source=_IBSI,
    ),
)

_SIDES = (("left", "posterior", "superior"), ("right", "anterior", "superior"))

POSITION = (
    *(
        Column(
            f"centroid_{axis}_{frame}_mm",
            "number",
            "mm",
            f"Mean voxel center, patient {side} ({'DICOM, LPS' if frame == 'lps' else 'NIfTI, RAS'}).",
            "DCM 128138",
            is_key=frame == "lps",
        )
        for frame, sides in zip(("lps", "ras"), _SIDES, strict=True)
        for axis, side in zip("xyz", sides, strict=True)
    ),
    *(
        Column(f"centroid_{axis}", "number", "voxel", f"Mean voxel index on the {place} array axis, from 0.")
        for axis, place in zip("ijk", ("first", "second", "third"), strict=True)
    ),
    *(
        Column(
            f"inner_{axis}",
            "integer",
            "voxel",
            f"Index on the {place} array axis of the lesion voxel that lies nearest to the centroid.",
        )
        for axis, place in zip("ijk", ("first", "second", "third"), strict=True)
    ),
    Column("bbox_i_min", "integer", "voxel", "First voxel index of the lesion on the first array axis."),
    Column("bbox_i_max", "integer", "voxel", "One past its last voxel index on the first array axis."),
    Column("bbox_j_min", "integer", "voxel", "First voxel index of the lesion on the second array axis."),
    Column("bbox_j_max", "integer", "voxel", "One past its last voxel index on the second array axis."),
    Column("bbox_k_min", "integer", "voxel", "First voxel index of the lesion on the third array axis."),
    Column("bbox_k_max", "integer", "voxel", "One past its last voxel index on the third array axis."),
    *(
        Column(
            f"bbox_{axis}_{end}_lps_mm",
            "number",
            "mm",
            f"{'Lowest' if end == 'min' else 'Highest'} position of a corner of a lesion voxel, patient {side} "
            "(DICOM, LPS).",
        )
        for axis, side in zip("xyz", _SIDES[0], strict=True)
        for end in ("min", "max")
    ),
)

QUALITY = (
    Column(
        "touches_border", "flag", "", "True if a voxel of the lesion lies on a face of the scan's grid.", is_key=True
    ),
    Column("area_on_border_mm2", "number", "mm2", "Area of the voxel faces that lie on a face of the scan's grid."),
    Column("n_components", "integer", "", "Number of parts of the lesion that do not touch even at a corner (26)."),
    Column("has_hole", "flag", "", "True if the lesion encloses other voxels (no way out through voxel faces)."),
    Column("hole_volume_ml", "number", "ml", "Volume of the voxels that it encloses; 0 without a hole."),
    Column("is_one_slice", "flag", "", "True if the lesion lies in one axial slice."),
    Column(
        "is_thinner_than_slice", "flag", "", "True if its shortest ellipsoid axis is below the distance of the slices."
    ),
    Column("has_few_voxels", "flag", "", "True below 10 voxels: shape and texture say little."),
    Column(
        "is_below_recist",
        "flag",
        "",
        "True if the longest diameter is below 10 mm, or below two slice distances where slices lie more than 5 mm "
        "apart: not measurable by RECIST 1.1.",
        source=_RECIST,
    ),
)
