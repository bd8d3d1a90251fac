"""Warm-up: each way of running a network on one window, checked against plain torch, and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

import torch
from torch import nn

from medseg.errors import NetworkFailed, UnsupportedOperator
from medseg.inference.candidates import Candidate, build
from medseg.inference.engine import Heads, TorchEngine, told_of_window
from medseg.inference.engine_memory import Choice

__all__ = ["WINDOWS_A_SCAN", "choose", "disagreement"]

WINDOWS_A_SCAN = 30
"""That a run is taken to have where a scan is cut into windows: each run pays an engine's start."""

_Result = TypeVar("_Result")

_CPU = torch.device("cpu")
_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}  # of the root mean square of the difference, as a share of the logits'
_CLEAR = 0.1  # a margin of the winning class, as a share of the logits' root mean square, that rounding must not turn
_LEAST_AGREEMENT = 0.995  # of the voxels with a clear winner
_LARGE_SIDE = 128  # voxels; a side as long as this is halved, which tells as much in an eighth of the time
_FASTER = 0.95  # of the best candidate's time for a scan, that a later one must stay below
_NOT_WORTH_IT_S = 0.02  # a network this fast runs as it is
_LEAST_TIMED_S = 0.5


@dataclass(frozen=True)
class _Trial:
    candidate: Candidate
    cpu_s: float = float("inf")
    wall_s: float = float("inf")
    start_s: float = 0.0
    failure: str | None = None

    def cost(self, n_windows: float) -> float:
        """Processor seconds of a run of so many windows like the one that was timed."""
        return self.start_s + n_windows * self.cpu_s

    def replaces(self, other: Candidate) -> bool:
        """Whether this is the same by faster layers."""
        same = (self.candidate.engine, self.candidate.precision) == (other.engine, other.precision)
        return same and self.failure is None


def choose(
    network: nn.Module,
    candidates: Sequence[Candidate],
    window: tuple[int, int, int, int],
    n_windows: int = WINDOWS_A_SCAN,
) -> Choice:
    """The candidate that is fastest for a scan, start included, of those whose heads agree with plain float32 torch.

    Parameters
    ----------
    network
        From (B, C, I, J, K) to logits or heads; on the CPU.
    candidates
        The simplest first: it stays unless a later one is clearly faster.
    window
        (C, I, J, K), what the network will be run on.
    n_windows
        How many of them a run is taken to have.

    Returns
    -------
    The choice, by processor time, which other programs on the machine hardly change.

    Raises
    ------
    UnsupportedOperator
        If no candidate runs the network and agrees.
    """
    plain, truth, noise = _plain(network, window)
    share = prod(window[1:]) / prod(noise.shape[2:])
    if plain.cpu_s * share < _NOT_WORTH_IT_S and plain.candidate in candidates:
        return Choice(candidate=plain.candidate, seconds_per_window=max(plain.wall_s * share, 1e-6))
    trials: list[_Trial] = []
    for candidate in candidates:
        is_needless = candidate.layers == "own" and any(trial.replaces(candidate) for trial in trials)
        if not is_needless:
            trials.append(_tried(network, candidate, noise, truth))
    best = None
    for trial in trials:
        cost = trial.cost(n_windows * share)
        if trial.failure is None and (best is None or cost < _FASTER * best.cost(n_windows * share)):
            best = trial
    if best is None:
        raise UnsupportedOperator("; ".join(f"engine {trial.candidate} {trial.failure}" for trial in trials))
    notes = tuple(f"engine {t.candidate} was left out: it {t.failure}" for t in trials if t.failure is not None)
    return Choice(candidate=best.candidate, seconds_per_window=max(best.wall_s * share, 1e-6), notes=notes)


def disagreement(heads: Heads, truth: Heads, precision: str) -> str | None:
    """In which way heads differ from those of plain torch by more than a precision explains; None if in none.

    Parameters
    ----------
    heads, truth
        (B, N, I, J, K) by name.
    precision
        "float32" or "bfloat16".
    """
    if {name: values.shape for name, values in heads.items()} != {name: t.shape for name, t in truth.items()}:
        return "gives heads of other names or shapes than plain torch"
    tolerance = _TOLERANCE[precision]
    for name, expected in truth.items():
        scale = expected.square().mean().sqrt()
        error = float((heads[name] - expected).square().mean().sqrt() / scale.clamp_min(1e-30))
        if not error <= tolerance:  # NaN is not
            return f"differs from plain float32 torch by {error:.1e} of the {name} logits (at most {tolerance:.0e})"
    agreement = _agreement(heads["semantic"], truth["semantic"]) if "semantic" in truth else 1.0
    if agreement < _LEAST_AGREEMENT:
        return f"gives the class of plain float32 torch in {agreement:.2%} of clear voxels, not {_LEAST_AGREEMENT:.1%}"
    return None


def _agreement(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of voxels of one class, among those whose winning class is clear."""
    if truth.shape[1] < 2:
        return 1.0
    first, second = truth.topk(2, dim=1).values.unbind(1)
    is_clear = first - second > _CLEAR * truth.square().mean().sqrt()
    is_same = logits.argmax(1) == truth.argmax(1)
    return float(is_same[is_clear].float().mean()) if is_clear.any() else 1.0


def _plain(network: nn.Module, window: tuple[int, int, int, int]) -> tuple[_Trial, Heads, torch.Tensor]:
    """Plain torch on a smaller window if the network takes it, else on the whole one."""
    engine = TorchEngine(network, _CPU, "exact")
    candidate = Candidate(engine="torch", precision="float32")
    smaller = tuple(side // 2 if side >= _LARGE_SIDE and side % 2 == 0 else side for side in window[1:])
    for shape in (smaller, window[1:]):
        noise = torch.randn((1, window[0], *shape), generator=torch.Generator().manual_seed(0))
        try:
            with told_of_window(shape):
                truth = engine(noise)
        except NetworkFailed:
            if shape == window[1:]:
                raise
        else:
            break
    return _timed(candidate, lambda: engine(noise)), truth, noise


def _tried(network: nn.Module, candidate: Candidate, noise: torch.Tensor, truth: Heads) -> _Trial:
    """Whether it agrees, and its times; what is compiled once on a machine is no part of its start."""
    try:
        engine, built_s = _with_cpu_time(lambda: build(network, candidate, _CPU))
        heads, first_s = _with_cpu_time(lambda: engine(noise))
        failure = disagreement(heads, truth, candidate.precision)
        if candidate.layers == "winograd" and failure is None:
            engine = build(network, candidate, _CPU)
            _, first_s = _with_cpu_time(lambda: engine(noise))
    except Exception as error:  # whatever a runtime raises, another candidate may run
        failure = f"does not run: {error}"
    if failure is not None:
        return _Trial(candidate, failure=failure)
    trial = _timed(candidate, lambda: engine(noise))
    return replace(trial, start_s=built_s + max(first_s - trial.cpu_s, 0.0))


def _with_cpu_time(run: Callable[[], _Result]) -> tuple[_Result, float]:
    before = time.process_time()
    return run(), time.process_time() - before


def _timed(candidate: Candidate, run: Callable[[], object]) -> _Trial:
    """Least time of several runs, as many as half a second holds."""
    best = _Trial(candidate, float("inf"), float("inf"))
    spent = 0.0
    while spent < _LEAST_TIMED_S:
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
        best = _Trial(candidate, min(best.cpu_s, cpu_s), min(best.wall_s, wall_s))
        spent += max(cpu_s, 0.05)
    return best
