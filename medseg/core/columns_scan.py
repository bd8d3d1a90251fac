"""Columns that need the scan: intensities of each channel, uptake of those in SUV."""

from __future__ import annotations

from medseg.core.column import Column

__all__ = ["INTENSITY", "UPTAKE"]

_IBSI = "IBSI (Zwanenburg 2020)"
_NO_SCAN = "no scan"
_NO_SUV = "no channel in SUV"


def _statistic(name: str, definition: str, code: str = "", null: str = "", unit: str = "scan") -> Column:
    return Column(
        name, "number", unit, definition, code, f"{_NO_SCAN}{f'; {null}' if null else ''}", _IBSI if code else ""
    )


_NO_SPREAD = "all voxels are equal"

INTENSITY = (
    Column("mean", "number", "scan", "Mean.", "IBSI Q4LE; SCT 373098007", _NO_SCAN, _IBSI, is_key=True),
    Column(
        "std",
        "number",
        "scan",
        "Population standard deviation (divides by the number of voxels).",
        "SCT 386136009",
        _NO_SCAN,
        _IBSI,
        is_key=True,
    ),
    Column("min", "number", "scan", "Lowest.", "IBSI 1GSF; SCT 255605001", _NO_SCAN, _IBSI, is_key=True),
    Column("max", "number", "scan", "Highest.", "IBSI 84IY; SCT 56851009", _NO_SCAN, _IBSI, is_key=True),
    _statistic("variance", "Population variance.", "IBSI ECT3", unit="scan^2"),
    _statistic("skewness", "Third central moment over std^3.", "IBSI KE2M", _NO_SPREAD, unit=""),
    _statistic("kurtosis", "Fourth central moment over std^4, minus 3 (excess).", "IBSI IPH6", _NO_SPREAD, unit=""),
    _statistic("p5", "5th percentile, linear between voxels."),
    _statistic("p10", "10th percentile, linear between voxels.", "IBSI QG58"),
    _statistic("p25", "25th percentile, linear between voxels."),
    _statistic("median", "Median.", "IBSI Y12H; SCT 373099004"),
    _statistic("p75", "75th percentile, linear between voxels."),
    _statistic("p90", "90th percentile, linear between voxels.", "IBSI 8DWT"),
    _statistic("p95", "95th percentile, linear between voxels."),
    _statistic("iqr", "75th minus 25th percentile.", "IBSI SALO"),
    _statistic("range", "Highest minus lowest.", "IBSI 2OJQ"),
    _statistic("mean_absolute_deviation", "Mean distance from the mean.", "IBSI 4FUA"),
    _statistic(
        "robust_mean_absolute_deviation",
        "Mean distance from their mean of the voxels between the 10th and the 90th percentile.",
        "IBSI 1128",
    ),
    _statistic("median_absolute_deviation", "Mean distance from the median.", "IBSI N72L"),
    _statistic("coefficient_of_variation", "std over mean.", "IBSI 7TET", "the mean is 0", unit=""),
    _statistic("quartile_coefficient", "(p75 - p25) / (p75 + p25).", "IBSI 9S40", "p75 + p25 is 0", unit=""),
    _statistic("energy", "Sum of squares.", "IBSI N8CA", unit="scan^2"),
    _statistic("rms", "Root of the mean square.", "IBSI 5ZWQ"),
    _statistic("integrated_intensity", "Mean times mesh volume in mm3.", "IBSI 99N0", unit="scan mm3"),
    _statistic(
        "entropy_bin25_bits",
        "Entropy, -sum p log2 p, of the histogram with bins 25 wide from multiples of 25.",
        "IBSI TLU2",
        "the channel is in SUV",
        unit="bits",
    ),
    _statistic(
        "uniformity_bin25",
        "Sum of p^2 of that histogram.",
        "IBSI BJ5W",
        "the channel is in SUV",
        unit="",
    ),
    _statistic(
        "entropy_bin0p25_bits",
        "Entropy of the histogram with bins 0.25 wide from multiples of 0.25.",
        "IBSI TLU2",
        "the channel is not in SUV",
        unit="bits",
    ),
    _statistic(
        "uniformity_bin0p25",
        "Sum of p^2 of that histogram.",
        "IBSI BJ5W",
        "the channel is not in SUV",
        unit="",
    ),
    _statistic(
        "center_of_mass_shift_mm",
        "Distance of the centroid weighted by intensity from the plain one.",
        "IBSI KLMA",
        "the intensities sum to 0",
        unit="mm",
    ),
    *(
        _statistic(
            f"hottest_{axis}_lps_mm",
            f"Center of the voxel of highest intensity, patient {side} (DICOM, LPS).",
            unit="mm",
        )
        for axis, side in zip("xyz", ("left", "posterior", "superior"), strict=True)
    ),
    Column(
        "ct_window",
        "text",
        "",
        "Name of the CT window whose center lies nearest to the median: lung (-600 HU), soft_tissue (40 HU) or bone "
        "(400 HU).",
        null=f"{_NO_SCAN}; the channel is not named CT",
    ),
    Column(
        "rim_3mm_n_voxels",
        "integer",
        "voxels",
        "Number of lesion voxels whose center lies within 3 mm of the center of a voxel outside the lesion.",
        null=_NO_SCAN,
    ),
    _statistic("rim_3mm_mean", "Mean over the rim of 3 mm.", null="the rim is empty"),
    _statistic("rim_3mm_std", "Population standard deviation over the rim of 3 mm.", null="the rim is empty"),
    Column(
        "margin_3mm_n_voxels",
        "integer",
        "voxels",
        "Number of voxels in no lesion whose center lies within 3 mm of the center of a lesion voxel.",
        null=_NO_SCAN,
    ),
    _statistic("margin_3mm_mean", "Mean over the margin of 3 mm.", null="the margin is empty"),
    _statistic("margin_3mm_std", "Population standard deviation over the margin of 3 mm.", null="the margin is empty"),
    _statistic("margin_3mm_contrast", "Mean of the lesion minus that of its margin.", null="the margin is empty"),
    _statistic(
        "organ_margin_3mm_mean",
        "Mean over the margin of 3 mm within the host organ.",
        null="no organ map; that margin is empty",
    ),
)


def _uptake(name: str, definition: str, unit: str, code: str = "", source: str = "", null: str = "") -> Column:
    return Column(name, "number", unit, definition, code, f"{_NO_SUV}{f'; {null}' if null else ''}", source)


def _at_threshold(suffix: str, which: str) -> tuple[Column, Column]:
    return (
        _uptake(f"mtv_{suffix}_ml", f"Volume of the lesion voxels {which}.", "ml", "DCM 126032"),
        _uptake(
            f"tlg_{suffix}_suv_ml",
            f"Mean SUV times volume of the lesion voxels {which}.",
            "SUV ml",
            "DCM 126033",
            null="no voxel is",
        ),
    )


UPTAKE = (
    _uptake("suv_max", "Highest SUV by body weight.", "SUV", "SCT 56851009; DCM 126401"),
    _uptake("suv_mean", "Mean SUV by body weight.", "SUV", "SCT 373098007; DCM 126401"),
    _uptake(
        "suv_peak",
        "Highest mean SUV in a ball of 1 ml whose center is a lesion voxel; voxels count by the share that the ball "
        "covers, also those outside the lesion, not those outside the scan.",
        "SUV",
        "DCM 126031",
        "PERCIST (Wahl 2009)",
    ),
    *(
        _uptake(f"suv_peak_{axis}_lps_mm", f"Center of that ball, patient {side} (DICOM, LPS).", "mm")
        for axis, side in zip("xyz", ("left", "posterior", "superior"), strict=True)
    ),
    _uptake("suv_peak_at_max", "Mean SUV in a ball of 1 ml around the voxel of highest SUV.", "SUV"),
    _uptake("mtv_ml", "Volume of the lesion as it is drawn.", "ml", "DCM 126032"),
    _uptake("tlg_suv_ml", "Mean SUV times volume of the lesion as it is drawn.", "SUV ml", "DCM 126033"),
    *_at_threshold("41pct", "at or above 41 % of the lesion's highest SUV"),
    *_at_threshold("50pct", "at or above 50 % of the lesion's highest SUV"),
    *_at_threshold("suv2p5", "at or above SUV 2.5"),
    *_at_threshold("suv4", "at or above SUV 4"),
)
