"""Names of organs: what the numbers in a map of organs mean when nothing beside it says so."""

from __future__ import annotations

from medseg.core.labels import LabelScheme

__all__ = ["TOTALSEGMENTATOR"]

_SIDES = ("left", "right")


def _both(*names: str) -> list[str]:
    return [f"{name}_{side}" for name in names for side in _SIDES]


_NAMES = [
    *("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas"),
    *("adrenal_gland_right", "adrenal_gland_left", "lung_upper_lobe_left", "lung_lower_lobe_left"),
    *("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right", "esophagus", "trachea"),
    *("thyroid_gland", "small_bowel", "duodenum", "colon", "urinary_bladder", "prostate"),
    *(*_both("kidney_cyst"), "sacrum", "vertebrae_S1"),
    *(f"vertebrae_L{number}" for number in range(5, 0, -1)),
    *(f"vertebrae_T{number}" for number in range(12, 0, -1)),
    *(f"vertebrae_C{number}" for number in range(7, 0, -1)),
    *("heart", "aorta", "pulmonary_vein", "brachiocephalic_trunk", "subclavian_artery_right", "subclavian_artery_left"),
    *("common_carotid_artery_right", "common_carotid_artery_left", *_both("brachiocephalic_vein")),
    *("atrial_appendage_left", "superior_vena_cava", "inferior_vena_cava", "portal_vein_and_splenic_vein"),
    *_both("iliac_artery", "iliac_vena", "humerus", "scapula", "clavicula", "femur", "hip"),
    *("spinal_cord", *_both("gluteus_maximus", "gluteus_medius", "gluteus_minimus", "autochthon", "iliopsoas")),
    *("brain", "skull"),
    *(f"rib_{side}_{number}" for side in _SIDES for number in range(1, 13)),
    *("sternum", "costal_cartilages"),
]

TOTALSEGMENTATOR = LabelScheme(classes=dict(enumerate(_NAMES, start=1)))
"""The 117 classes of TotalSegmentator version 2, task "total"."""
