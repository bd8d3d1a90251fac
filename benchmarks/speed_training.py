"""Processor time of a training step on a CPU in float32: medseg's layers beside torch's own, in turn.

    python benchmarks/speed_training.py [--plan bundles/phantom_lesions/configs/plan.json] [--sides 64 64 64]
        [--batch 2] [--first-filters 16] [--threads 1] [--rounds 5]

A step is the network forth and back; its data, losses and optimizer are the same for both and left out.
"""

from __future__ import annotations

import argparse
import json
import time
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn

from medseg.core.plan import Plan
from medseg.inference.device import place, place_input
from medseg.networks.build import build_member
from medseg.training.cpu_layers import quicken

CPU = torch.device("cpu")


def step_s(network: nn.Module, windows: torch.Tensor) -> float:
    """Processor seconds of one."""
    network.zero_grad()
    start = time.process_time()
    heads = network(windows)
    values = heads.values() if isinstance(heads, dict) else [heads]
    torch.stack([head.square().mean() for head in values]).sum().backward()
    return time.process_time() - start


def main() -> None:
    """Print the least time of each, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, default=Path("bundles/phantom_lesions/configs/plan.json"))
    parser.add_argument("--sides", type=int, nargs=3, default=(64, 64, 64))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument(
        "--first-filters", type=int, help="of the first level; others in proportion; default: the plan's"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    plan = Plan.model_validate(json.loads(options.plan.read_text()))
    filters = plan.network.filters
    filters = tuple(n * (options.first_filters or filters[0]) // filters[0] for n in filters)
    plan = plan.model_copy(update={"network": plan.network.model_copy(update={"filters": filters})})
    plain = place(build_member(plan), CPU).train()
    quick = deepcopy(plain)
    quicken(quick)
    windows = place_input(torch.randn(options.batch, len(plan.channels), *options.sides), CPU)
    step_s(quick, windows)  # compiles
    times = [(step_s(plain, windows), step_s(quick, windows)) for _ in range(options.rounds)]
    torchs, ours = (min(column) for column in zip(*times, strict=True))
    print(
        json.dumps(
            {
                "plan": plan.name,
                "filters": filters,
                "windows": list(windows.shape),
                "torch_cpu_s": round(torchs, 2),
                "medseg_cpu_s": round(ours, 2),
                "ratio": round(ours / torchs, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
