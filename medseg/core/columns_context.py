"""Columns that place a lesion among others: identity, organ, neighbors, how sure the model is; and totals of a scan."""

from __future__ import annotations

from medseg.core.column import Column

__all__ = ["CONFIDENCE", "IDENTITY", "LESION_FIELDS", "NEIGHBORS", "ORGAN", "TOTALS"]

IDENTITY = (
    Column("case_id", "text", "", "The case that the lesion was found in."),
    Column(
        "lesion_id",
        "integer",
        "",
        "Number of the lesion in the lesion map, from 1, by descending volume.",
        "DCM 112039",
        is_key=True,
    ),
)

# Read from the attribute of `medseg.core.lesions.Lesion` that has the column's name; a new field needs an entry here.
LESION_FIELDS = (
    Column("class_name", "text", "", "Class of the lesion in the semantic map.", "DCM 121071", is_key=True),
    Column("score", "number", "", "How sure the method is that this is a lesion, 0..1.", null="the method gives none"),
)

_NO_ORGANS = "no organ map"
_NO_OTHER = "no other lesion"
_NO_PROBABILITY = "no probability map"

ORGAN = (
    Column(
        "organ",
        "text",
        "",
        "Host organ: the one with most voxels of the lesion, the lower number of equals; without overlap the nearest "
        "within 50 mm.",
        "SCT 363698007",
        f"{_NO_ORGANS}; none within 50 mm",
    ),
    Column("organ_overlap", "number", "", "Share of the lesion's voxels in the host organ.", null="no host organ"),
    Column(
        "organ_distance_mm",
        "number",
        "mm",
        "Shortest distance between voxel centers of lesion and host organ; 0 where they overlap.",
        null="no host organ",
    ),
    Column(
        "organ_boundary_distance_mm",
        "number",
        "mm",
        "Shortest distance from a voxel center of the lesion to one outside the host organ and outside all lesions; "
        "minus the distance to the organ where the lesion lies outside it.",
        null="no host organ; none within 50 mm",
    ),
)

NEIGHBORS = (
    Column("nearest_lesion_id", "integer", "", "The lesion at the shortest distance.", null=_NO_OTHER),
    Column(
        "nearest_lesion_distance_mm",
        "number",
        "mm",
        "Shortest distance between voxel centers of this lesion and of another.",
        null=_NO_OTHER,
    ),
    Column(
        "nearest_centroid_distance_mm",
        "number",
        "mm",
        "Shortest distance between the centroids of this lesion and of another.",
        null=_NO_OTHER,
    ),
    Column("n_contacts", "integer", "", "Number of lesions with which it shares a voxel face."),
    Column("contact_area_mm2", "number", "mm2", "Area of the voxel faces that it shares with other lesions."),
)

CONFIDENCE = (
    Column("probability_mean", "number", "", "Mean probability over the lesion.", "DCM 111012", _NO_PROBABILITY),
    Column("probability_median", "number", "", "Median probability.", null=_NO_PROBABILITY),
    Column("probability_min", "number", "", "Lowest probability.", null=_NO_PROBABILITY),
    Column("probability_max", "number", "", "Highest probability.", null=_NO_PROBABILITY),
    Column(
        "probability_entropy_bits",
        "number",
        "bits",
        "Mean over the lesion of -p log2 p - (1 - p) log2 (1 - p).",
        null=_NO_PROBABILITY,
    ),
)

TOTALS = (
    Column("n_lesions", "integer", "", "Number of lesions."),
    Column("n_recist_measurable", "integer", "", "Number of lesions that are not below RECIST size."),
    Column("volume_ml", "number", "ml", "Sum of the voxel volumes; 0 without lesions."),
    Column("longest_diameter_sum_mm", "number", "mm", "Sum of the longest diameters of all lesions."),
    Column("who_product_sum_mm2", "number", "mm2", "Sum of the WHO products of all lesions."),
    Column("largest_longest_diameter_mm", "number", "mm", "Highest longest diameter.", null="no lesion"),
    Column("suv_max", "number", "SUV", "Highest SUVmax.", null="no lesion; no channel in SUV"),
    Column("suv_peak", "number", "SUV", "Highest SUVpeak.", null="no lesion; no channel in SUV"),
    Column("mtv_ml", "number", "ml", "Sum of MTV.", "DCM 126032", "no channel in SUV"),
    Column("tlg_suv_ml", "number", "SUV ml", "Sum of TLG.", "DCM 126033", "no channel in SUV"),
    Column(
        "dissemination_mm",
        "number",
        "mm",
        "Longest distance between the centroids of two lesions (Dmax).",
        null="fewer than 2 lesions",
        source="Cottereau 2020",
    ),
)
