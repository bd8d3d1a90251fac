"""medseg: from a medical scan to a table of lesions.

    import medseg

    segmenter = medseg.load_segmenter("sarcoma_pet")
    result = medseg.segment_case(medseg.read_scan("scan.nii.gz"), segmenter)
    result.table  # print it, iterate over it, or result.table.to_pandas()
    medseg.write_case(result, "out/case")

Every public name is listed in `__all__` and loaded on first use (PEP 562), so that `import medseg` is quick and
loads neither torch nor MONAI. For research use only: medseg is no medical device.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.batch.run import run_archive
    from medseg.core.geometry import Geometry
    from medseg.core.labels import LabelScheme
    from medseg.core.lesions import LesionMap
    from medseg.core.plan import Plan
    from medseg.core.result import CaseResult
    from medseg.core.scan import Scan
    from medseg.core.semantic import SemanticMap
    from medseg.core.table import LesionTable
    from medseg.core.volume import Volume
    from medseg.errors import MedsegError
    from medseg.evaluation.case import evaluate_case
    from medseg.evaluation.compare import compare_systems
    from medseg.evaluation.evaluate import evaluate_cohort
    from medseg.inference.options import RunOptions
    from medseg.io.convert import convert_lesions
    from medseg.io.discover import find_scans
    from medseg.io.label_files import read_lesions, read_semantic
    from medseg.io.scan import load_volume, read_scan
    from medseg.lesions.measure import measure_lesions
    from medseg.lesions.separate import separate_lesions
    from medseg.models.load import load_segmenter
    from medseg.phantoms.make import make_phantom
    from medseg.pipeline import segment_case, write_case
    from medseg.training.train import train

_HOME = {
    "CaseResult": "medseg.core.result",
    "Geometry": "medseg.core.geometry",
    "LabelScheme": "medseg.core.labels",
    "LesionMap": "medseg.core.lesions",
    "LesionTable": "medseg.core.table",
    "MedsegError": "medseg.errors",
    "Plan": "medseg.core.plan",
    "RunOptions": "medseg.inference.options",
    "Scan": "medseg.core.scan",
    "SemanticMap": "medseg.core.semantic",
    "Volume": "medseg.core.volume",
    "compare_systems": "medseg.evaluation.compare",
    "convert_lesions": "medseg.io.convert",
    "evaluate_case": "medseg.evaluation.case",
    "evaluate_cohort": "medseg.evaluation.evaluate",
    "find_scans": "medseg.io.discover",
    "load_segmenter": "medseg.models.load",
    "load_volume": "medseg.io.scan",
    "make_phantom": "medseg.phantoms.make",
    "measure_lesions": "medseg.lesions.measure",
    "read_lesions": "medseg.io.label_files",
    "read_scan": "medseg.io.scan",
    "read_semantic": "medseg.io.label_files",
    "run_archive": "medseg.batch.run",
    "segment_case": "medseg.pipeline",
    "separate_lesions": "medseg.lesions.separate",
    "train": "medseg.training.train",
    "write_case": "medseg.pipeline",
}

__version__ = "0.1.0"

__all__ = [
    "CaseResult",
    "Geometry",
    "LabelScheme",
    "LesionMap",
    "LesionTable",
    "MedsegError",
    "Plan",
    "RunOptions",
    "Scan",
    "SemanticMap",
    "Volume",
    "__version__",
    "compare_systems",
    "convert_lesions",
    "evaluate_case",
    "evaluate_cohort",
    "find_scans",
    "load_segmenter",
    "load_volume",
    "make_phantom",
    "measure_lesions",
    "read_lesions",
    "read_scan",
    "read_semantic",
    "run_archive",
    "segment_case",
    "separate_lesions",
    "train",
    "write_case",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medseg' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
