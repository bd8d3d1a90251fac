"""The rules of docs/explanation/architecture.md that a test can check."""

from __future__ import annotations

import ast
import importlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import medseg

ROOT = Path(medseg.__file__).resolve().parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if "bundles" not in path.relative_to(ROOT).parts)
ROWS = {
    "errors": 1,
    "core": 2,
    "phantoms": 3,
    "lesions": 3,
    "metrics": 3,
    "networks": 3,
    "dicom": 3,
    "io": 4,
    "transforms": 5,
    "pages": 5,
    "inference": 6,
    "evaluation": 6,
    "tracking": 6,
    "reports": 6,
    "models": 7,
    "pipeline": 8,
    "demo": 9,  # a phantom through the pipeline
    "training": 8,
    "batch": 9,
    "cli": 10,
    "__main__": 11,
}
HEAVY = {
    "torch": {"networks", "transforms", "inference", "models", "training"},
    "monai": {"networks", "transforms", "inference", "models", "training"},
    "SimpleITK": {"io", "lesions", "tracking"},
    "nibabel": {"io"},
    "pydicom": {"io", "dicom"},
    "highdicom": {"dicom"},
    "pynetdicom": {"dicom"},
    "dicomweb_client": {"dicom"},
    "requests": {"dicom"},
    "keyring": {"dicom"},
    "distributed": {"batch"},
    "pandas": {"io", "core"},  # core: LesionTable.to_pandas, imported when it is called
    "typer": {"cli"},
    "rich": {"cli"},
}
CORE_MAY_IMPORT = {"numpy", "pydantic", "medseg", "pandas", *sys.stdlib_module_names}


def room(path: Path) -> str:
    """The folder, or top-level module, that a file belongs to."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """Every module name that a file imports, inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, code lines without the docstring) of every function in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            yield f"{path.relative_to(ROOT)}:{node.name}", lines


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


INNER = [path for path in MODULES if path.name != "__init__.py" or path.parent != ROOT]


@pytest.mark.parametrize("path", INNER, ids=named)
def test_module_imports_its_own_folder_and_lower_rows_only(path: Path) -> None:
    own = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "medseg" and len(parts) > 1 and parts[1] != own:
            assert ROWS[parts[1]] < ROWS[own], f"{named(path)} (row {ROWS[own]}) imports {name}"


@pytest.mark.parametrize("path", INNER, ids=named)
def test_heavy_packages_stay_in_their_folders(path: Path) -> None:
    for name in imports(path):
        package = name.split(".")[0]
        if package in HEAVY:
            assert room(path) in HEAVY[package], f"{named(path)} imports {name}"


def test_core_needs_numpy_pydantic_and_the_standard_library_only() -> None:
    for path in MODULES:
        if room(path) in {"core", "errors"}:
            foreign = {name.split(".")[0] for name in imports(path)} - CORE_MAY_IMPORT
            assert not foreign, f"{named(path)} imports {foreign}"


def test_no_module_is_longer_than_400_lines() -> None:
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_no_function_has_more_than_50_code_lines_and_the_median_is_at_most_10() -> None:
    lengths = dict(pair for path in MODULES for pair in functions(path))
    assert {name: n for name, n in lengths.items() if n > 50} == {}
    assert statistics.median(lengths.values()) <= 10


def test_only_the_command_line_prints() -> None:
    for path in MODULES:
        if room(path) == "cli":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        assert not any(isinstance(c.func, ast.Name) and c.func.id == "print" for c in calls), named(path)


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_exported_names_are_sorted_documented_and_there(path: Path) -> None:
    relative = path.relative_to(ROOT.parent).with_suffix("")
    name = ".".join(part for part in relative.parts if part != "__init__")
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    if path.name == "__init__.py" and path.parent != ROOT:
        return
    if path.name == "__main__.py":
        return
    exported = module.__all__
    assert list(exported) == sorted(exported), f"{name}.__all__ is not sorted"
    for public in exported:
        value = getattr(module, public)
        if callable(value) and getattr(value, "__module__", "").startswith("medseg"):
            assert value.__doc__, f"{name}.{public} has no docstring"


def test_modules_have_no_name_that_says_nothing() -> None:
    vague = {"utils", "helpers", "common", "base", "misc"}
    assert not [named(path) for path in MODULES if path.stem in vague]


def test_public_names_are_at_most_30_and_what_the_package_shows() -> None:
    assert len(medseg.__all__) <= 30
    assert dir(medseg) == sorted(medseg.__all__)
    for name in medseg.__all__:
        assert getattr(medseg, name) is not None


def test_import_medseg_loads_neither_torch_nor_monai_nor_numpy() -> None:
    code = "import sys, medseg; print([m for m in ('torch', 'monai', 'numpy', 'pydantic') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_segmenting_with_a_common_network_needs_no_monai() -> None:
    code = (
        "import sys, numpy as np, medseg\n"
        "from medseg.core.geometry import Geometry\n"
        "from medseg.core.volume import Volume\n"
        "segmenter = medseg.load_segmenter('sarcoma_pet', device='cpu', engine='torch')\n"
        "grid = Geometry((16, 16, 16), np.diag([-3.0, 4.0, 5.0, 1.0]))\n"
        "segmenter.segment(Volume(np.ones((1, 16, 16, 16), np.float32), grid, ('PET',), units=segmenter.units))\n"
        "print([m for m in ('monai',) if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_running_a_model_of_nnunet_needs_no_monai() -> None:
    code = (
        "import sys, medseg; medseg.load_segmenter; import medseg.models.nnunet, medseg.networks.nnunet;"
        "print([m for m in ('monai',) if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_separating_and_measuring_needs_no_torch() -> None:
    code = (
        "import sys, medseg; medseg.separate_lesions; medseg.measure_lesions; medseg.read_lesions;"
        "medseg.make_phantom; print([m for m in ('torch', 'monai') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
