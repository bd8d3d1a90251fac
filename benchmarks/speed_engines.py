"""How near each engine comes to what the processor can do: processor time of a window against a per-layer roofline.

    python benchmarks/speed_engines.py [--network shipped nnunet] [--threads 1] [--rounds 3] [--json OUT.json]

Each layer alone at its own shape takes at least its multiplications over the peak rate, or its memory over the peak
bandwidth, whichever is longer; the roofline of a network is the sum over its layers. Peaks are measured in the same run
before and after, by a product of torch and by a copy. Convolutions count as their definition has them (2 x
taps x channels in x channels out a voxel), so a method that multiplies less may pass 100 %. A normalization reads and
writes a map once; activations, additions and concatenations count as nothing, for they can be fused.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg.inference.candidates import build, candidates_for
from medseg.networks.nnunet import NnunetArchitecture, NnunetNetwork

CPU = torch.device("cpu")


def standard_nnunet() -> tuple[nn.Module, tuple[int, ...]]:
    """nnU-Net's 3d_fullres network for a window of 128 voxels a side, as its planner makes it for a large CT."""
    architecture = NnunetArchitecture(
        kind="plain",
        n_inputs=1,
        n_outputs=2,
        features=(32, 64, 128, 256, 320, 320),
        kernels=((3, 3, 3),) * 6,
        strides=((1, 1, 1), *((2, 2, 2),) * 5),
        encoder_blocks=(2,) * 6,
        decoder_blocks=(2,) * 5,
    )
    return NnunetNetwork(architecture).eval(), (1, 128, 128, 128)


def shipped() -> tuple[nn.Module, tuple[int, ...]]:
    """The network of `bundles/sarcoma_pet` on its own window."""
    from medseg.models.load import load_segmenter

    segmenter = load_segmenter("sarcoma_pet", device="cpu", precision="exact")
    return segmenter._bodies[0], (1, *segmenter.recipe.windows.patch_size)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {"nnunet": standard_nnunet, "shipped": shipped}


def cpu_s(work: Callable[[], Any], rounds: int) -> float:
    """Least processor seconds of several rounds, after one to warm up."""
    work()
    spent = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def peaks(rounds: int) -> tuple[float, float]:
    """Floating-point operations and bytes a second of processor time."""
    a, b = torch.randn(3072, 3072), torch.randn(3072, 3072)
    source = torch.randn(64 << 20)
    target = torch.empty_like(source)
    rate = 2 * 3072**3 / cpu_s(lambda: torch.mm(a, b), rounds)
    return rate, 2 * source.nbytes / cpu_s(lambda: target.copy_(source), rounds)


def layers_of(network: nn.Module, window: torch.Tensor) -> list[tuple[str, float, float]]:
    """Kind, operations and bytes of every layer that counts."""
    found: list[tuple[str, float, float]] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if not isinstance(output, torch.Tensor) or not isinstance(inputs[0], torch.Tensor):
            return
        moved = 4.0 * (inputs[0].numel() + output.numel())
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            taps = module.weight[0, 0].numel() * module.in_channels * module.out_channels // module.groups
            n = output[0, 0].numel() if isinstance(module, nn.Conv3d) else inputs[0][0, 0].numel()
            found.append((type(module).__name__, 2.0 * taps * n, moved + 4.0 * module.weight.numel()))
        elif isinstance(module, nn.InstanceNorm3d | nn.BatchNorm3d | nn.GroupNorm):
            found.append((type(module).__name__, 0.0, moved))

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    with torch.inference_mode():
        network(window)
    for hook in hooks:
        hook.remove()
    return found


def report(name: str, rounds: int) -> dict[str, Any]:
    """One network through every engine that runs here."""
    torch.manual_seed(0)
    network, shape = NETWORKS[name]()
    window = torch.randn(1, *shape)
    layers = layers_of(network, window)
    (rate, bandwidth), seconds = peaks(rounds), {}
    for candidate in candidates_for(CPU, "auto", "auto"):
        engine = build(network, candidate, CPU)
        seconds[str(candidate)] = cpu_s(lambda engine=engine: engine(window), rounds)
    exact = build(network, candidates_for(CPU, "auto", "exact")[0], CPU)
    seconds["torch as the model's own program runs it"] = cpu_s(lambda: exact(window), rounds)
    after = peaks(rounds)
    rate, bandwidth = max(rate, after[0]), max(bandwidth, after[1])
    bound = sum(max(operations / rate, moved / bandwidth) for _, operations, moved in layers)
    return {
        "network": name,
        "window": shape,
        "gflop": round(sum(operations for _, operations, _ in layers) / 1e9, 1),
        "peak_gflop_s": round(rate / 1e9, 1),
        "peak_gb_s": round(bandwidth / 1e9, 1),
        "roofline_cpu_s": round(bound, 3),
        "engines": {
            engine: {"cpu_s": round(spent, 3), "share_of_roofline": round(bound / spent, 3)}
            for engine, spent in seconds.items()
        },
    }


def main() -> None:
    """Report on each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=sorted(NETWORKS), default=["shipped", "nnunet"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in arguments.network:
        rows.append(report(name, arguments.rounds))
        print(json.dumps(rows[-1], indent=2), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
