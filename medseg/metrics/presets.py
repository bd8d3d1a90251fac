"""Published conventions of lesion-wise evaluation, as data: what counts as a lesion, a match, and in an empty case."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from medseg.errors import UsageError
from medseg.metrics.matching import MatchingRule

__all__ = ["CORE_EDGE_CASES", "Convention", "EdgeCase", "InputKind", "PRESETS", "get_convention"]

InputKind = Literal["lesions", "semantic", "detection-map"]
Published = Literal["panoptica", "brats2023", "cc-metrics", "autopet", "luna16", "picai"]


class EdgeCase(BaseModel):
    """What the figures are where there is nothing to compare; "null" is a figure that is not defined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    both_empty: str
    empty_reference: str
    empty_prediction: str
    no_match: str


class Convention(BaseModel):
    """How two maps become counts and scores.

    Parameters
    ----------
    name, title, reference
        Of the preset, what it is, where it is published.
    input
        "lesions": maps of lesion numbers, taken as they are. "semantic": maps of classes, separated here.
        "detection-map": the prediction holds a confidence in each voxel of a candidate; the reference is semantic.
    matching
        The rule.
    connectivity
        Neighbors of a voxel in the components of a semantic map: 6, 18 or 26.
    unite_classes
        True: components of all classes together; False: of each class.
    classes
        The class numbers that a semantic map may hold; None: any.
    regions
        Regions that are scored one by one, and the classes that each unites.
    merge_dilation_voxels
        Reference components that a dilation by this many voxels (18 neighbors) connects are one lesion.
    least_reference_mm3
        Reference lesions of this volume or less are left out of counts and means.
    most_predictions
        Only so many predictions of a case count, those of the highest scores; the others, and what ties with the first
        of them, count neither way. None: all.
    published
        Which published figures `values` of a case holds beside medseg's own.
    edge_cases
        Of the published figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    reference: str
    input: InputKind = "lesions"
    matching: MatchingRule = MatchingRule()
    connectivity: Literal[6, 18, 26] = 26
    unite_classes: bool = False
    classes: Mapping[int, str] | None = None
    regions: Mapping[str, tuple[int, ...]] = Field(default_factory=dict)
    merge_dilation_voxels: int = 0
    least_reference_mm3: float | None = None
    most_predictions: int | None = None
    published: Published | None = None
    edge_cases: EdgeCase


CORE_EDGE_CASES = EdgeCase(
    both_empty="all scores null; the case is counted and left out of means",
    empty_reference="dice, iou, nsd, precision, f1, pq 0; sensitivity, sq, hd95_mm null; hd95_penalized_mm the "
    "diagonal of the grid",
    empty_prediction="dice, iou, nsd, sensitivity, f1, pq 0; precision, sq, hd95_mm null; hd95_penalized_mm the "
    "diagonal of the grid",
    no_match="precision, sensitivity, f1, pq 0; sq null; the semantic scores as they come",
)
"""Of the figures that every preset writes."""

_BRATS_EDGES = EdgeCase(
    both_empty="LesionWise_Score_Dice 1, LesionWise_Score_HD95 0, Legacy_Dice 1, Legacy_HD95 0, Sensitivity 1",
    empty_reference="LesionWise_Score_Dice 0, LesionWise_Score_HD95 374, Legacy_Dice 0, Legacy_HD95 374, Sensitivity 0",
    empty_prediction="LesionWise_Score_Dice 0, LesionWise_Score_HD95 374; 1 and 0 if no lesion exceeds the limit",
    no_match="LesionWise_Score_Dice 0, LesionWise_Score_HD95 374; every false positive counts 0 and 374",
)


def _brats(track: str, dilation: int, least_mm3: float) -> Convention:
    return Convention(
        name=f"brats2023-{track.lower()}",
        title=f"BraTS 2023 lesion-wise metrics, {track}",
        reference="Saluja R et al. BraTS-2023-Metrics, metrics.py at 43c9052 (2023)",
        input="semantic",
        matching=MatchingRule(assignment="all", by="dilated", dilation_voxels=dilation, strict=False, threshold=0.0),
        unite_classes=True,
        classes={1: "NCR", 2: "ED", 3: "ET"},
        regions={"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)},
        merge_dilation_voxels=dilation,
        least_reference_mm3=least_mm3,
        published="brats2023",
        edge_cases=_BRATS_EDGES,
    )


_CONVENTIONS = (
    Convention(
        name="default",
        title="one-to-one at IoU above 0.5, 26 neighbors, all in millimeters",
        reference="medseg",
        edge_cases=CORE_EDGE_CASES,
    ),
    Convention(
        name="kirillov",
        title="panoptic quality",
        reference="Kirillov A et al. Panoptic segmentation. CVPR 2019",
        edge_cases=EdgeCase(
            both_empty="rq, sq, pq null (the class is absent)",
            empty_reference="rq 0, pq 0, sq null",
            empty_prediction="rq 0, pq 0, sq null",
            no_match="rq 0, pq 0, sq null",
        ),
    ),
    Convention(
        name="panoptica",
        title="panoptica's default: greedy at IoU of 0.5 or more, components of each class over 26 neighbors",
        reference="Kofler F et al. panoptica: instance-wise evaluation of 3D semantic and instance segmentation maps. "
        "arXiv:2312.02608; version 2.1.7",
        matching=MatchingRule(assignment="greedy", by="iou", threshold=0.5, strict=False),
        published="panoptica",
        edge_cases=EdgeCase(
            both_empty="all null (panoptica: nan)",
            empty_reference="rq, sq, pq, sq_dsc, pq_dsc, global_bin_dsc 0; distances null (panoptica: inf)",
            empty_prediction="rq, sq, pq, sq_dsc, pq_dsc, global_bin_dsc 0; distances null (panoptica: inf)",
            no_match="rq, sq, pq, sq_dsc, pq_dsc 0; distances null (panoptica: inf, or NotImplementedError)",
        ),
    ),
    _brats("GLI", 3, 50.0),
    _brats("MEN", 1, 50.0),
    _brats("MET", 1, 2.0),
    _brats("PED", 3, 50.0),
    _brats("SSA", 3, 50.0),
    Convention(
        name="cc-metrics",
        title="CC-Dice: Dice within the territory of each reference component",
        reference="Jaus A et al. Every component counts. AAAI 2025",
        input="semantic",
        unite_classes=True,
        published="cc-metrics",
        edge_cases=EdgeCase(
            both_empty="cc_dice 1",
            empty_reference="cc_dice 0",
            empty_prediction="cc_dice 0",
            no_match="cc_dice 0; false positives lower the Dice of the nearest component",
        ),
    ),
    Convention(
        name="autopet",
        title="autoPET: Dice, false positive and false negative volume over 18 neighbors",
        reference="Gatidis S et al. autoPET challenge, val_script.py (2022-2024)",
        input="semantic",
        matching=MatchingRule(assignment="all", by="overlap", threshold=0.0, strict=True),
        connectivity=18,
        unite_classes=True,
        published="autopet",
        edge_cases=EdgeCase(
            both_empty="dice null (the script: nan), false_positive_volume_ml 0, false_negative_volume_ml 0",
            empty_reference="dice null: such a case is scored by false_positive_volume_ml alone (the script: dice 0)",
            empty_prediction="dice 0, false_negative_volume_ml the whole reference",
            no_match="dice 0, both volumes whole",
        ),
    ),
    Convention(
        name="luna16",
        title="LUNA16: a candidate's center within the lesion's radius; FROC and CPM",
        reference="Setio AAA et al. Med Image Anal 42:1 (2017), noduleCADEvaluationLUNA16.py",
        matching=MatchingRule(assignment="all", by="center", strict=True),
        most_predictions=100,
        published="luna16",
        edge_cases=EdgeCase(
            both_empty="counts as a scan without lesions: no score of its own, but a denominator of false positives",
            empty_reference="every candidate a false positive",
            empty_prediction="every lesion missed",
            no_match="cpm 0",
        ),
    ),
    Convention(
        name="picai",
        title="PI-CAI: one-to-one at IoU of 0.1 or more, AP and AUROC",
        reference="Saha A et al. Lancet Oncol 25:879 (2024), DIAGNijmegen/picai_eval 1.4",
        input="detection-map",
        matching=MatchingRule(
            assignment="optimal",
            by="iou",
            threshold=0.1,
            strict=False,
            most_pairs_first=True,
            epsilon=1e-8,
            spare_candidates=True,
        ),
        unite_classes=True,
        published="picai",
        edge_cases=EdgeCase(
            both_empty="a negative case of confidence 0",
            empty_reference="a negative case; every candidate a false positive",
            empty_prediction="a positive case of confidence 0; every lesion missed",
            no_match="ap 0",
        ),
    ),
)

PRESETS: Mapping[str, Convention] = {convention.name: convention for convention in _CONVENTIONS}
"""Every preset by its name."""


def get_convention(preset: str | Convention) -> Convention:
    """The convention of a name; a convention of one's own is returned as it is.

    Raises
    ------
    UsageError
        If there is no preset of that name.

    Examples
    --------
    >>> get_convention("kirillov").matching.strict, get_convention("panoptica").matching.strict
    (True, False)
    """
    if isinstance(preset, Convention):
        return preset
    if preset not in PRESETS:
        near = get_close_matches(preset, PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no preset {preset!r}{hint} Presets: {', '.join(PRESETS)}")
    return PRESETS[preset]
