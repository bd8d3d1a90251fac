"""The training loop: one network, one plan, a number of steps, read from top to bottom.

Seeded by the step, it can be killed anywhere and goes on from its last checkpoint to the same weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from medseg.core.monitor import Monitor
from medseg.core.plan import Plan, TrainingPlan
from medseg.errors import TrainingError
from medseg.inference.device import Precision, autocast, multiplies_bfloat16, place, place_input
from medseg.inference.winograd import has_numba
from medseg.io.labelled_cases import LabelledCase
from medseg.networks.build import build_member
from medseg.networks.ensemble import joined_weights
from medseg.networks.heads import HEAD_PREFIX
from medseg.networks.stored import stored_weights
from medseg.networks.supervision import supervised
from medseg.training.checkpoints import Best, RunState, read_checkpoint, write_checkpoint
from medseg.training.datasets import Batch, batches
from medseg.training.losses import loss_of
from medseg.training.phantom_cases import phantom_cases
from medseg.training.processes import fit_in_processes
from medseg.training.task import FitTask
from medseg.training.team import Team, check_team, devices_of
from medseg.training.training_log import TrainingLog
from medseg.training.validation import validate
from medseg.transforms.augment import TrainingCase

__all__ = ["fit", "fit_members", "learning_rate", "train_steps"]

logger = logging.getLogger(__name__)

_GRADIENT_NORM = 12.0  # as nnU-Net clips
_LOG_EVERY = 50


def learning_rate(step: int, plan: TrainingPlan) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    warm_up = min(1.0, (step + 1) / max(plan.warmup_steps, 1))
    return plan.learning_rate * warm_up * 0.5 * (1.0 + math.cos(math.pi * step / plan.steps))


def fit(
    cases: Sequence[TrainingCase],
    plan: Plan,
    folder: Path,
    *,
    device: torch.device,
    devices: int = 1,
    resume: bool = False,
    monitor: Monitor | None = None,
    given: Mapping[str, torch.Tensor] | None = None,
    validation: Sequence[LabelledCase] = (),
    start: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Train a network, or each member of an ensemble in turn.

    Parameters
    ----------
    cases
        At least one.
    plan
        Network, patch, steps, seed; member m of an ensemble takes the seed m above.
    folder
        Where `checkpoint.pt`, `train.log` (one JSON object a line) and `train.csv` go; for an ensemble in `member_0`,
        ...
    device
        Where the network is trained; autocast and channels-last on CUDA.
    devices
        How many CUDA devices train it together, or processes on the CPU: each takes its share of every batch.
    resume
        Go on from the checkpoints in `folder` if there are some.
    monitor
        Told of each step.
    given
        Weights of a network without instance heads: they stay as they are, and only the heads are trained.
    validation
        Cases that are not trained on, for the plan's `validate_every`.
    start
        Weights that the network starts from, all of them; None for fresh ones.

    Returns
    -------
    The exponential moving average of the weights over the steps, on the CPU, in the plan's `weights_dtype`; of the step
    that did best in validation where there is one.

    Raises
    ------
    TrainingError
        If there is no case to train on, or none to validate on where the plan asks for it, the loss is not finite, a
        weight is beyond the plan's `weights_dtype`, a checkpoint was made with another plan, the plan cannot be trained
        on so many devices, or one of several processes fails; if there is deep supervision and only heads are trained.
    UsageError
        If there are not so many devices.
    """
    if not cases:
        raise TrainingError("no case to train on")
    if plan.training.validate_every and not validation:
        raise TrainingError(f"validate_every is {plan.training.validate_every}, and there is no case to validate on")
    if given is not None and plan.training.deep_supervision:
        raise TrainingError("deep supervision trains a whole network; where heads alone are trained it has no use")
    check_team(plan, devices)
    places = devices_of(device, devices)
    task = FitTask(plan, cases, phantom_cases(plan), validation, given, start)
    monitor = monitor or Monitor()
    if len(places) > 1:
        return fit_in_processes(task, folder, places, resume=resume, monitor=monitor)
    return fit_members(task, folder, device=device, resume=resume, monitor=monitor)


def fit_members(
    task: FitTask, folder: Path, *, device: torch.device, resume: bool, monitor: Monitor, team: Team | None = None
) -> dict[str, torch.Tensor]:
    """Train the members of a task one after the other, in this process, alone or as one of a team; as `fit` returns."""
    team = team or Team()
    n_members, seed = task.plan.network.members, task.plan.training.seed
    monitor.expect(n_members * task.plan.training.steps)
    weights = []
    for member in range(n_members):
        given, start = (_of_member(given, member, n_members) for given in (task.given, task.start))
        run = _Run(replace(task, plan=_seeded(task.plan, seed + member), given=given, start=start), device, team)
        weights.append(_fit_member(run, folder / f"member_{member}" if n_members > 1 else folder, resume, monitor))
    return stored_weights(weights[0] if n_members == 1 else joined_weights(weights), task.plan)


@dataclass(frozen=True)
class _Run:
    """What one network is trained on, with the plan's seed as its own, where, and together with whom."""

    task: FitTask
    device: torch.device
    team: Team

    @property
    def plan(self) -> Plan:
        return self.task.plan


def _seeded(plan: Plan, seed: int) -> Plan:
    return plan.model_copy(update={"training": plan.training.model_copy(update={"seed": seed})})


def _of_member(given: Mapping[str, torch.Tensor] | None, member: int, n_members: int) -> dict[str, torch.Tensor] | None:
    if given is None:
        return None
    prefix = f"{member}." if n_members > 1 else ""
    return {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}


def _fit_member(run: _Run, folder: Path, resume: bool, monitor: Monitor) -> dict[str, torch.Tensor]:
    plan, task, team = run.plan, run.task, run.team
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    state = _fresh_state(plan, run.device, task.given, task.start)
    if resume and checkpoint.is_file():
        read_checkpoint(checkpoint, state, plan)
        logger.info("%s: goes on after step %d", folder.name, state.step)
    monitor.advance(state.step)
    step = _Step(state, plan, run.device, team, only_heads=task.given is not None)
    with TrainingLog(folder, state.step) if team.is_first else nullcontext() as log:
        watch = _Watch()
        source = batches(task.cases, task.phantoms, plan, state.step, team)
        n_left = 0 if _is_exhausted(state, plan.training) else plan.training.steps - state.step
        for batch in _ahead(source, n_left):
            loss = step(batch)
            if not math.isfinite(loss):
                raise TrainingError(f"the loss is {loss} at step {state.step}; try a lower learning rate")
            state.losses.append(loss)
            monitor.advance()
            record = _loss_record(state, plan.training, watch)
            if is_validated := _is_due(state.step, plan.training.validate_every, plan.training.steps):
                record |= _validated(state, run)
                watch.lap()
            if record and log is not None:
                log.write(state.step, record)
            is_due = is_validated or _is_due(state.step, plan.training.checkpoint_every, plan.training.steps)
            if is_due and team.is_first:
                write_checkpoint(checkpoint, state, plan)
            if _is_exhausted(state, plan.training):
                break
    monitor.advance(plan.training.steps - state.step)
    return _on_cpu(state.average) if state.best is None else dict(state.best.weights)


def train_steps(source: Iterable[Batch], plan: Plan, device: torch.device) -> None:
    """Train a fresh member on some batches, and forget it: to see what a step costs."""
    step = _Step(_fresh_state(plan, device), plan, device, Team())
    for batch in source:
        step(batch)


def _is_due(step: int, every: int, last: int) -> bool:
    """Whether something that is done every so many steps, and at the end, is done after this one; 0 is never."""
    return every > 0 and (step % every == 0 or step == last)


def _is_exhausted(state: RunState, plan: TrainingPlan) -> bool:
    """Whether as many validations as the plan's patience have gone by without better weights."""
    if not plan.patience or state.best is None:
        return False
    return state.step - state.best.step >= plan.patience * plan.validate_every


def _loss_record(state: RunState, plan: TrainingPlan, watch: _Watch) -> dict[str, float | bool]:
    """What the log says of the losses since its last line, if one is due; they are then told."""
    if not _is_due(state.step, _LOG_EVERY, plan.steps):
        return {}
    mean = sum(state.losses) / len(state.losses)
    state.losses.clear()
    rate = learning_rate(state.step - 1, plan)
    return {"loss": round(mean, 5), "learning_rate": float(f"{rate:.4g}"), "seconds": watch.lap()}


def _validated(state: RunState, run: _Run) -> dict[str, float | bool]:
    """Validate the moving average, and keep its weights if they are the best so far."""
    watch = _Watch()
    weights = _on_cpu(state.average)
    scores = validate(weights, run.plan, run.task.validation, run.device, run.team)
    is_best = state.best is None or scores.score > state.best.score
    if is_best:
        state.best = Best(state.step, scores.score, {name: tensor.clone() for name, tensor in weights.items()})
    logger.info("step %d: Dice %.4f, lesion F1 %.4f", state.step, scores.dice, scores.lesion_f1)
    return {
        "dice": round(scores.dice, 5),
        "lesion_f1": round(scores.lesion_f1, 5),
        "validation_seconds": watch.lap(),
        "is_best": is_best,
    }


def _on_cpu(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


def _fresh_state(
    plan: Plan,
    device: torch.device,
    given: Mapping[str, torch.Tensor] | None = None,
    start: Mapping[str, torch.Tensor] | None = None,
) -> RunState:
    torch.manual_seed(plan.training.seed)
    network = place(build_member(plan), device)
    if given is not None:
        _take_over(network, given)
    if start is not None:
        network.load_state_dict(dict(start))
    average = deepcopy(network).eval()
    with_lower = supervised(network, plan).to(device) if plan.training.deep_supervision else None
    trained = [parameter for parameter in (with_lower or network).parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=plan.training.learning_rate, weight_decay=plan.training.weight_decay)
    if device.type == "cpu" and _training_precision(device) == "float32" and has_numba():
        from medseg.training.cpu_layers import quicken

        quicken(network)
    return RunState(network.train(), average, optimizer, with_lower)


def _take_over(network: nn.Module, given: Mapping[str, torch.Tensor]) -> None:
    """Load weights that stay as they are; everything else must be an instance head of the network's own."""
    missing, unexpected = network.load_state_dict(dict(given), strict=False)
    other = [name for name in missing if not name.startswith(HEAD_PREFIX)]
    if unexpected or other or not missing:
        raise TrainingError(
            "heads alone are trained for a network that has them as a branch of its own (kind segresnet) and all other "
            f"weights already; missing {other[:3]}, unexpected {unexpected[:3]}"
        )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(HEAD_PREFIX))


class _Step:
    """One optimizer step after the other: on a batch, or on this process's share of it."""

    def __init__(
        self, state: RunState, plan: Plan, device: torch.device, team: Team, *, only_heads: bool = False
    ) -> None:
        self._state, self._plan, self._device, self._team = state, plan.training, device, team
        self._network = team.wrap(state.supervised or state.network, device)
        self._loss = loss_of(plan, only_heads=only_heads)
        self._precision = _training_precision(device)

    def __call__(self, batch: Batch) -> float:
        """Take the step; the loss of the whole batch."""
        state, plan = self._state, self._plan
        torch.manual_seed(_seed_of(plan.seed, state.step, self._team.rank))  # dropout follows from the step
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(state.step, plan)
        state.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        stacks = _stacked(batch)
        for number, (image, label) in enumerate(stacks, 1):  # samples differ in size; their gradients add up
            with self._team.quiet(self._network, until_last=number == len(stacks)):
                total += self._add_gradients(image, label)
        nn.utils.clip_grad_norm_(self._network.parameters(), _GRADIENT_NORM)
        state.optimizer.step()
        state.step += 1
        _update_average(state, plan.ema_decay)
        return self._team.total(total)

    def _add_gradients(self, image: torch.Tensor, label: torch.Tensor) -> float:
        """Of samples of one size; their part in the loss of the batch."""
        share = len(image) / self._plan.batch_size
        with autocast(self._device, self._precision):
            logits = self._network(place_input(image, self._device))
        loss: torch.Tensor = self._loss(logits, label.to(self._device, non_blocking=True)) * share
        (loss * self._team.size).backward()  # type: ignore[no-untyped-call]  # gradients are averaged over the team
        return float(loss.item())


def _seed_of(seed: int, step: int, rank: int) -> int:
    """The seed of what the network itself draws in a step; other processes have other samples, and draw otherwise."""
    return seed + step if rank == 0 else int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def _stacked(batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Samples of one size as one image and label: one after the other torch takes slower kernels."""
    by_size: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for image, label in batch:
        by_size.setdefault(image.shape, []).append((image, label))
    return [
        (torch.cat([image for image, _ in same]), torch.cat([label for _, label in same])) for same in by_size.values()
    ]


@torch.no_grad()
def _update_average(state: RunState, decay: float) -> None:
    """Moving average of all weights; the first steps count for less, as the average has no past yet."""
    decay = min(decay, state.step / (state.step + 9))
    for mean, now in zip(state.average.state_dict().values(), state.network.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(now, 1.0 - decay)
        else:
            mean.copy_(now)


def _training_precision(device: torch.device) -> Precision:
    """bfloat16 where the hardware multiplies it, a quarter of the time; float16 would need loss scaling."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if multiplies_bfloat16() else "float32"


def _ahead(source: Iterator[Batch], n: int) -> Iterator[Batch]:
    """The first n batches, the next one being drawn in a thread while the network works on the present one."""
    if n <= 0:
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(next, source)
        for left in range(n - 1, -1, -1):
            batch = coming.result()
            if left:
                coming = pool.submit(next, source)
            yield batch


class _Watch:
    """Seconds since it was last looked at."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def lap(self) -> float:
        """Seconds, rounded to hundredths; they start again."""
        seconds, self._start = time.perf_counter() - self._start, time.perf_counter()
        return round(seconds, 2)
