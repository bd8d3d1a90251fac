"""Loading a CT series of 600 slices: medseg beside SimpleITK, MONAI's readers and dcm2niix, in turn on one machine.

python -m pip install itk-io dcm2niix python-gdcm
python benchmarks/speed_reading.py [--slices 600] [--rounds 5]

Each reading is a process of its own, so that start-up is not counted and peak memory is that of the whole process:
seconds are taken inside, around the reading alone, as time that passed and as time that the processors spent (the
latter hardly depends on what else the machine does); memory is the peak resident size, and the same after imports.
The series is written first: noise on a gradient, uncompressed and as lossless JPEG.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

LOSSLESS_JPEG = "1.2.840.10008.1.2.4.70"
READERS = {
    "medseg": (
        "from medseg import load_volume, read_scan",  # resolved here: `import medseg` alone loads nothing
        "load_volume(read_scan(folder)).array",
    ),
    "SimpleITK": (
        "import SimpleITK as sitk",
        "sitk.GetArrayFromImage(sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder)))"
        ".astype('float32')",
    ),
    "MONAI pydicom": (
        "from monai.transforms import LoadImage; reader = LoadImage(reader='PydicomReader')",
        "reader(folder)",
    ),
    "MONAI ITK": ("from monai.transforms import LoadImage; reader = LoadImage(reader='ITKReader')", "reader(folder)"),
    "dcm2niix": (
        "import dcm2niix, tempfile; out = tempfile.mkdtemp()",
        "dcm2niix.main(['-z', 'n', '-b', 'n', '-o', out, folder], capture_output=True)",
    ),
}
MEASURED = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
folder = sys.argv[1]
{imports}
whose = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
spent = lambda: sum(sum(resource.getrusage(who)[:2]) for who in whose)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start, start_cpu = time.perf_counter(), spent()
result = {reading}
seconds, cpu_s = time.perf_counter() - start, spent() - start_cpu
peak = max(resource.getrusage(who).ru_maxrss for who in whose)
print(json.dumps({{"seconds": seconds, "cpu_s": cpu_s, "import_mib": before / 1024, "peak_mib": peak / 1024}}))
"""


def write_series(folder: Path, n_slices: int) -> None:
    """An uncompressed CT series of 512 x 512 pixels, files named in no order of position."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    series, study = generate_uid(), generate_uid()
    ramp = np.add.outer(np.arange(512), np.arange(512)).astype(np.int16)
    for number in rng.permutation(n_slices).tolist():
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        slice_ = pydicom.Dataset()
        slice_.file_meta = meta
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = study, series
        slice_.Modality, slice_.SeriesNumber, slice_.InstanceNumber = "CT", 1, number + 1
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.Rows = slice_.Columns = 512
        slice_.PixelSpacing, slice_.SliceThickness = [0.8, 0.8], 1.0
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.ImagePositionPatient = [-204.4, -204.4, float(number)]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
        slice_.PixelData = (ramp + rng.integers(0, 60, ramp.shape, dtype=np.int16)).tobytes()
        slice_.save_as(folder / f"{rng.integers(2**31):08x}_{number}.dcm", enforce_file_format=True)


def compress(source: Path, target: Path) -> None:
    """The same series as lossless JPEG (process 14, selection value 1), by GDCM."""
    import gdcm

    target.mkdir()
    for path in source.iterdir():
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise RuntimeError(f"{path} could not be compressed")
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target / path.name))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.Write()


def settle_memory(mib: int = 6144) -> None:
    """Touch memory once, in a process of its own, before anything is measured.

    A virtual machine gets its memory from its host when it first touches it, which takes several times as long as ever
    after: what is measured first, or uses most, would pay for that.
    """
    code = f"import numpy; numpy.ones({mib} << 17)"
    subprocess.run([sys.executable, "-c", code], check=True)


def measure(reader: str, folder: Path) -> dict[str, float] | None:
    """Seconds and memory of one reading in a process of its own; None if it fails."""
    imports, reading = READERS[reader]
    code = MEASURED.format(imports=imports, reading=reading)
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{reader} failed: {done.stderr.strip().splitlines()[-1:]}")
        return None
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def report(name: str, folder: Path, rounds: int, n_slices: int) -> None:
    """Alternate the readers, each round beginning with another; print the median of each with the ratio to medseg's.

    The order matters: memory that was just freed is cheaper to get than memory that the system has to find.
    """
    runs: dict[str, list[dict[str, float]]] = {reader: [] for reader in READERS}
    for number in range(rounds):
        order = list(READERS)
        for reader in order[number % len(order) :] + order[: number % len(order)]:
            figures = measure(reader, folder)
            runs[reader] += [figures] if figures else []
    array_mib = 512 * 512 * n_slices * 4 / 2**20
    print(f"\n{name}, 512 x 512 x {n_slices} (float32 array {array_mib:.0f} MiB), median of {rounds}")
    print(
        "| reader | seconds | over medseg | processor s | peak MiB | after imports | (peak - imports) / array |\n"
        + "|---" * 7
        + "|"
    )
    ours = statistics.median(run["seconds"] for run in runs["medseg"]) if runs["medseg"] else float("nan")
    for reader, found in runs.items():
        if not found:
            print(f"| {reader} | failed | | | | | |")
            continue
        seconds, cpu_s, peak, imports = (
            statistics.median(run[key] for run in found) for key in ("seconds", "cpu_s", "peak_mib", "import_mib")
        )
        growth = (peak - imports) / array_mib
        times = f"{seconds:.2f} | {seconds / ours:.2f} | {cpu_s:.2f}"
        print(f"| {reader} | {times} | {peak:.0f} | {imports:.0f} | {growth:.2f} |")


def main() -> None:
    """Write both series, and report on each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "plain", Path(folder) / "packed"
        write_series(plain, arguments.slices)
        compress(plain, packed)
        settle_memory()
        report("uncompressed", plain, arguments.rounds, arguments.slices)
        report(f"lossless JPEG ({LOSSLESS_JPEG})", packed, arguments.rounds, arguments.slices)


if __name__ == "__main__":
    main()
