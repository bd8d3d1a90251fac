"""The training loop: one network, one plan, a number of steps, read from top to bottom.

Seeded by the step, it can be killed anywhere and goes on from its last checkpoint to the same weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from medseg.core.monitor import Monitor
from medseg.core.plan import Plan, TrainingPlan
from medseg.errors import TrainingError
from medseg.inference.device import Precision, autocast, multiplies_bfloat16, place, place_input
from medseg.io.labelled_cases import LabelledCase
from medseg.networks.build import build_member
from medseg.networks.ensemble import joined_weights
from medseg.networks.heads import HEAD_PREFIX
from medseg.training.checkpoints import Best, RunState, read_checkpoint, write_checkpoint
from medseg.training.datasets import Batch, batches
from medseg.training.losses import loss_of
from medseg.training.phantom_cases import phantom_cases
from medseg.training.training_log import TrainingLog
from medseg.training.validation import validate
from medseg.transforms.augment import TrainingCase

__all__ = ["fit", "learning_rate", "train_steps"]

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
    The exponential moving average of the weights over the steps, on the CPU; of the step that did best in validation
    where there is one.

    Raises
    ------
    TrainingError
        If there is no case to train on, or none to validate on where the plan asks for it, the loss is not finite, or a
        checkpoint was made with another plan.
    """
    if not cases:
        raise TrainingError("no case to train on")
    if plan.training.validate_every and not validation:
        raise TrainingError(f"validate_every is {plan.training.validate_every}, and there is no case to validate on")
    monitor = monitor or Monitor()
    n_members = plan.network.members
    monitor.expect(n_members * plan.training.steps)
    phantoms = phantom_cases(plan)
    runs = [
        _Run(
            cases,
            phantoms,
            validation,
            plan,
            plan.training.seed + member,
            device,
            _of_member(given, member, n_members),
            _of_member(start, member, n_members),
        )
        for member in range(n_members)
    ]
    if n_members == 1:
        return _fit_member(runs[0], folder, resume, monitor)
    return joined_weights(
        [_fit_member(run, folder / f"member_{number}", resume, monitor) for number, run in enumerate(runs)]
    )


@dataclass(frozen=True)
class _Run:
    """What one network is trained on, with which seed, and the weights that it has already."""

    cases: Sequence[TrainingCase]
    phantoms: Sequence[TrainingCase]
    validation: Sequence[LabelledCase]
    plan: Plan
    seed: int
    device: torch.device
    given: Mapping[str, torch.Tensor] | None = None
    start: Mapping[str, torch.Tensor] | None = None


def _of_member(given: Mapping[str, torch.Tensor] | None, member: int, n_members: int) -> dict[str, torch.Tensor] | None:
    if given is None:
        return None
    prefix = f"{member}." if n_members > 1 else ""
    return {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}


def _fit_member(run: _Run, folder: Path, resume: bool, monitor: Monitor) -> dict[str, torch.Tensor]:
    plan = run.plan.model_copy(update={"training": run.plan.training.model_copy(update={"seed": run.seed})})
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    state = _fresh_state(plan, run.device, run.given, run.start)
    if resume and checkpoint.is_file():
        read_checkpoint(checkpoint, state, plan)
        logger.info("%s: goes on after step %d", folder.name, state.step)
    monitor.advance(state.step)
    precision = _training_precision(run.device)
    loss_function = loss_of(plan, only_heads=run.given is not None)
    with TrainingLog(folder, state.step) as log:
        watch = _Watch()
        source = batches(run.cases, run.phantoms, plan, state.step)
        n_left = 0 if _is_exhausted(state, plan.training) else plan.training.steps - state.step
        for batch in _ahead(source, n_left):
            loss = _step(state, batch, plan.training, loss_function, run.device, precision)
            if not math.isfinite(loss):
                raise TrainingError(f"the loss is {loss} at step {state.step}; try a lower learning rate")
            state.losses.append(loss)
            monitor.advance()
            record = _loss_record(state, plan.training, watch)
            if is_validated := _is_due(state.step, plan.training.validate_every, plan.training.steps):
                record |= _validated(state, run, plan)
                watch.lap()
            if record:
                log.write(state.step, record)
            if is_validated or _is_due(state.step, plan.training.checkpoint_every, plan.training.steps):
                write_checkpoint(checkpoint, state, plan)
            if _is_exhausted(state, plan.training):
                break
    monitor.advance(plan.training.steps - state.step)
    return _on_cpu(state.average) if state.best is None else dict(state.best.weights)


def train_steps(source: Iterable[Batch], plan: Plan, device: torch.device) -> None:
    """Train a fresh member on some batches, and forget it: to see what a step costs."""
    state, precision, loss_function = _fresh_state(plan, device), _training_precision(device), loss_of(plan)
    for batch in source:
        _step(state, batch, plan.training, loss_function, device, precision)


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


def _validated(state: RunState, run: _Run, plan: Plan) -> dict[str, float | bool]:
    """Validate the moving average, and keep its weights if they are the best so far."""
    watch = _Watch()
    weights = _on_cpu(state.average)
    scores = validate(weights, plan, run.validation, run.device)
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
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=plan.training.learning_rate, weight_decay=plan.training.weight_decay)
    return RunState(network.train(), deepcopy(network).eval(), optimizer)


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


def _step(
    state: RunState,
    batch: Batch,
    plan: TrainingPlan,
    loss_function: nn.Module,
    device: torch.device,
    precision: Precision,
) -> float:
    torch.manual_seed(plan.seed + state.step)  # dropout follows from the step, also after a resume
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, plan)
    state.optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for image, label, share in _stacked(batch):  # by size, as samples differ in it; the gradients add up
        with autocast(device, precision):
            logits = state.network(place_input(image, device))
        loss: torch.Tensor = loss_function(logits, label.to(device, non_blocking=True)) * share
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.item())
    nn.utils.clip_grad_norm_(state.network.parameters(), _GRADIENT_NORM)
    state.optimizer.step()
    state.step += 1
    _update_average(state, plan.ema_decay)
    return total


def _stacked(batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    """Samples of one size as one: image, label, share of the batch. One after the other torch takes slower kernels."""
    by_size: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for image, label in batch:
        by_size.setdefault(image.shape, []).append((image, label))
    return [
        (torch.cat([image for image, _ in same]), torch.cat([label for _, label in same]), len(same) / len(batch))
        for same in by_size.values()
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
