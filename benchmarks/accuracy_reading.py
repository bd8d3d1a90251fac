"""Who puts every stored pixel of a DICOM series where its own headers say it is.

python -m pip install dicom2nifti itk-io highdicom dcm2niix
python benchmarks/accuracy_reading.py [DATA_ROOT]

The judge is point truth: for each stored frame, 64 pixels whose world position and value were computed from the headers
alone (`dicom/ref/NAME/points.npz`, see the data's README). A reader is right if every frame is found in one of the
volumes that it returns, "refused" if it returns none, and wrong otherwise; "warned" means that it said something. Where
a series cannot be one volume (a slice is missing), refusing is right. dcm2niix scales Philips MR by the vendor's own
factors, so its values differ from the standard ones in mr_dual_echo_phase by design.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import medseg

ROOT = Path(__file__).resolve().parents[1]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
Volumes = list[tuple[np.ndarray, np.ndarray]]


def by_medseg(folder: Path) -> Volumes:
    """Every scan that `find_scans` gives."""
    volumes = [medseg.load_volume(scan) for scan in medseg.find_scans(folder)]
    return [(volume.array[0], volume.geometry.affine) for volume in volumes]


def by_monai_pydicom(folder: Path) -> Volumes:
    """MONAI's LoadImage with its PydicomReader."""
    from monai.transforms import LoadImage

    image = LoadImage(reader="PydicomReader", ensure_channel_first=False)(str(folder))
    return [(np.asarray(image), np.asarray(image.affine))]


def by_monai_itk(folder: Path) -> Volumes:
    """MONAI's LoadImage with its ITKReader."""
    from monai.transforms import LoadImage

    image = LoadImage(reader="ITKReader", ensure_channel_first=False)(str(folder))
    return [(np.asarray(image), np.asarray(image.affine))]


def by_simpleitk(folder: Path) -> Volumes:
    """SimpleITK's series reader, each series that it lists."""
    import SimpleITK as sitk

    volumes = []
    for series in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
        image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series))
        lps = np.eye(4)
        lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        lps[:3, 3] = image.GetOrigin()
        volumes.append((sitk.GetArrayFromImage(image).T, LPS_TO_RAS @ lps))
    return volumes


def by_dicom2nifti(folder: Path) -> Volumes:
    """dicom2nifti's folder conversion."""
    import dicom2nifti

    with tempfile.TemporaryDirectory() as out:
        dicom2nifti.convert_directory(str(folder), out, compression=False, reorient=False)
        return _nifti_volumes(Path(out))


def by_dcm2niix(folder: Path) -> Volumes:
    """dcm2niix, every file that it writes."""
    import dcm2niix

    with tempfile.TemporaryDirectory() as out:
        dcm2niix.main(["-z", "n", "-b", "n", "-o", out, str(folder)], capture_output=True)
        return _nifti_volumes(Path(out))


def by_highdicom(folder: Path) -> Volumes:
    """The volume of each series, as highdicom finds it."""
    import highdicom
    import pydicom

    groups: dict[str, list[pydicom.Dataset]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            dataset = pydicom.dcmread(path)
            groups.setdefault(dataset.SeriesInstanceUID, []).append(dataset)
    found = [highdicom.get_volume_from_series(datasets) for datasets in groups.values()]
    return [(volume.array, LPS_TO_RAS @ volume.affine) for volume in found]


def _nifti_volumes(folder: Path) -> Volumes:
    import nibabel as nib

    images = [nib.load(path) for path in sorted(folder.rglob("*.nii"))]
    return [(np.asarray(image.get_fdata()), image.affine) for image in images]


READERS: dict[str, Callable[[Path], Volumes]] = {
    "medseg": by_medseg,
    "MONAI pydicom": by_monai_pydicom,
    "MONAI ITK": by_monai_itk,
    "SimpleITK": by_simpleitk,
    "dicom2nifti": by_dicom2nifti,
    "dcm2niix": by_dcm2niix,
    "highdicom": by_highdicom,
}


@contextmanager
def overheard() -> Iterator[list[str]]:
    """What a reader says: Python warnings, log records, and lines that libraries write to stderr themselves."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    saved = os.dup(2)
    with tempfile.TemporaryFile() as stream, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", message=".*NvImgCodec.*")  # MONAI, at every reading
        os.dup2(stream.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            logging.getLogger().removeHandler(handler)
            stream.seek(0)
            said += [str(warning.message) for warning in caught] + stream.read().decode(errors="replace").splitlines()


def verdict(read: Callable[[Path], Volumes], series: Path, points: Path, check: str, judge: Callable) -> str:
    """One cell of the table."""
    volumes: Volumes = []
    with overheard() as said:
        try:
            volumes = [volume for volume in read(series) if volume[0].ndim in (3, 4)]
        except ImportError:
            raise  # a reader that is not installed has not been measured
        except Exception as error:  # any reader may raise anything: that is a refusal
            said.append(str(error))
    warned = ", warned" if said and volumes else ""
    if not volumes:
        return "refused, right" if check == "refuse_or_explicit" else "refused"
    frames = judge(volumes, points)
    if frames.all() and check != "refuse_or_explicit":
        return f"right{warned}"
    return f"WRONG {int(frames.sum())}/{len(frames)}{warned or ', silent'}"


def main() -> None:
    """Print the table, and how often each reader was right, refused and wrong."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data"
    specification = importlib.util.spec_from_file_location("check_points", data / "dicom" / "check_points.py")
    judge = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(judge)
    manifest = json.loads((data / "dicom" / "manifest.json").read_text(encoding="utf-8"))
    rows = {}
    for series in manifest["series"]:
        name = series["name"]
        points = data / "dicom" / "ref" / name / "points.npz"
        rows[name] = {
            reader: verdict(read, data / "dicom" / name, points, series["check"], judge.check_points)
            for reader, read in READERS.items()
        }
    print("| series | " + " | ".join(READERS) + " |\n|" + "---|" * (len(READERS) + 1))
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells.values()) + " |")
    for word in ("right", "refused", "WRONG"):
        counts = [sum(cells[reader].startswith(word) for cells in rows.values()) for reader in READERS]
        print(f"| **{word.lower()}** | " + " | ".join(map(str, counts)) + " |")


if __name__ == "__main__":
    main()
