"""Peak memory of a whole-body model with many classes on a large CT, and that it does not grow with the classes.

    python benchmarks/memory_inference.py [--classes 2 25 105] [--every 12] [--precision float32] [--out FILE.json]

The model is made like MONAI's wholeBody_ct_segmentation: SegResNet of 32 filters, 1.5 mm, windows of 96 voxels with
overlap 0.25, Gaussian blend, random weights (what is measured does not depend on them, except that a random network's
classes change from voxel to voxel, which is the worst case for painting). The scan is 512 x 512 x 600 voxels of 0.8 x
0.8 x 1 mm.

With --every N only each N-th window runs through the network; the others reuse its last output. Memory is the same,
for every window is summed and every voxel painted, and the network does run with its full window; the time of the
network is not. Each number of classes runs in a process of its own; its peak is `ru_maxrss` at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import SegResNet
from torch import nn

from medseg.core.geometry import Geometry
from medseg.core.labels import LabelScheme
from medseg.core.monitor import Monitor
from medseg.core.recipe import ChannelSpec, OutputPlan, Recipe, WindowPlan
from medseg.core.steps import Orient, Respace
from medseg.core.volume import Volume
from medseg.inference.options import RunOptions
from medseg.inference.segmenter import Segmenter


class EveryNth(nn.Module):
    """A network of which only each n-th window is computed."""

    def __init__(self, network: nn.Module, n: int) -> None:
        super().__init__()
        self.network, self.n = network, n
        self.n_seen = self.n_computed = 0
        self.last: torch.Tensor | None = None

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """The network's output, or its last one."""
        is_new = self.last is None or self.last.shape[2:] != windows.shape[2:]
        if is_new or self.n_seen % self.n == 0:
            self.last = self.network(windows)
            self.n_computed += 1
        self.n_seen += 1
        return self.last


def recipe_for(n_classes: int) -> Recipe:
    """What wholeBody_ct_segmentation does, with another number of classes."""
    return Recipe(
        name=f"whole body, {n_classes} classes",
        family="monai",
        channels=(ChannelSpec(name="CT", modality="CT"),),
        labels=LabelScheme(classes={number: f"class {number}" for number in range(1, n_classes)}),
        preparation=(Orient(axcodes="RAS"), Respace(spacing_mm=(1.5, 1.5, 1.5))),
        windows=WindowPlan(patch_size=(96, 96, 96), overlap=0.25, blend="gaussian", padding="replicate"),
        output=OutputPlan(paint=tuple(range(n_classes))),
    )


def scan_of(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Volume:
    """A smooth body with noise, in the order in which NIfTI files lie in memory."""
    rng = np.random.default_rng(0)
    array = np.empty(shape, dtype=np.float32, order="F")
    i, j = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    body = np.where(i**2 + (1.4 * j) ** 2 < 0.8, 1.0, -1.0).astype(np.float32)
    for k in range(shape[2]):
        array[:, :, k] = body + 0.3 * rng.standard_normal(shape[:2], dtype=np.float32)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    return Volume(array[None], Geometry(shape, affine), ("CT",))


def measure(arguments: argparse.Namespace, n_classes: int) -> dict[str, object]:
    """One run in this process."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    network = SegResNet(
        spatial_dims=3, init_filters=32, in_channels=1, out_channels=n_classes, blocks_down=(1, 2, 2, 4)
    )
    options = RunOptions(keeps_probability=arguments.probability, max_memory_mib=arguments.max_memory_mib)
    segmenter = Segmenter(
        EveryNth(network, arguments.every),
        recipe_for(n_classes),
        device="cpu",
        precision=arguments.precision,
        options=options,
    )
    monitor = Monitor()
    volume = scan_of(tuple(arguments.shape), tuple(arguments.spacing))
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.process_time()
    semantic, notes = segmenter.segment(volume, monitor)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "n_classes": n_classes,
        "peak_rss_mib": after.ru_maxrss // 1024,
        "peak_rss_before_mib": before.ru_maxrss // 1024,
        "cpu_s": round(time.process_time() - start, 1),
        "wall_s_by_stage": {stage: round(seconds, 1) for stage, seconds in monitor.seconds.items()},
        "n_labels_present": len(np.unique(semantic.array[::8, ::8, ::8])),
        "notes": list(notes),
    }


def main() -> None:
    """Measure each number of classes in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 25, 105])
    parser.add_argument("--every", type=int, default=12)
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 512, 600])
    parser.add_argument("--spacing", type=float, nargs=3, default=[0.8, 0.8, 1.0])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--probability", action="store_true", help="keep the probability map, as medseg segment does")
    parser.add_argument("--max-memory-mib", type=float)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if len(arguments.classes) == 1:
        print(json.dumps(measure(arguments, arguments.classes[0])))
        return
    print(f"Only every {arguments.every}-th window runs through the network: peaks are honest, network times are not.")
    given = sys.argv[1:]
    at = given.index("--classes") if "--classes" in given else len(given)
    rest = [word for n, word in enumerate(given) if not at <= n <= at + len(arguments.classes)]
    rows = []
    for n_classes in arguments.classes:
        command = [sys.executable, __file__, *rest, "--classes", str(n_classes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))
        print(json.dumps(rows[-1]), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({"every": arguments.every, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
