"""The training loop. Training, sparsifying and fine-tuning are this function with different hooks and loss terms."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.scores import Scores
from secateur.terminal import bar, duration
from secateur.training.batches import Batches, BatchLike
from secateur.training.hooks import Hook
from secateur.training.objective import Term
from secateur.training.optimization.optimizer import set_rates
from secateur.training.results import EpochBar, EpochRow, make_row
from secateur.training.session import Session, TrainingKind, open_session
from secateur.training.settings import TrainSettings
from secateur.training.state import TrainingIdentity, sealed_randomness
from secateur.training.task import Task, largest_stride


@dataclass(frozen=True)
class FitResult:
    """Checkpoint files, and the figures of the best epoch (`best_epoch` counts from 0)."""

    best: Path
    last: Path
    best_epoch: int
    metrics: dict[str, float]
    epochs: int  # trained epochs; fewer than requested after early stopping
    rows: tuple[EpochRow, ...]
    best_fitness: float = -1.0  # of the best epoch; negative if nothing was evaluated


def fit(
    network: nn.Module,
    batches: Batches,
    settings: TrainSettings,
    *,
    task: Task,
    folder: Path,
    hooks: Sequence[Hook] = (),
    terms: Sequence[Term] = (),
    evaluate: Callable[[nn.Module], Scores] | None = None,
    resume: bool = False,
    like: Checkpoint | None = None,
    split: Any = None,
    kind: TrainingKind = TrainingKind(),  # noqa: B008 (frozen)
    identity: TrainingIdentity | None = None,
) -> FitResult:
    """Trains `network` in place; its moving average is evaluated and saved.

    At the end of an epoch, an optimizer step is taken on the gradients accumulated so far, so all images are used and
    no gradients are pending when the state is saved. Every process of a distributed training calls this function with
    its own share of the batches.

    Args:
        task: defines the loss.
        folder: run folder: results.csv, weights/best and weights/last (.safetensors, fp16), state.pt.
        hooks: methods that act around the optimizer step.
        terms: loss terms in addition to the loss of the task.
        evaluate: called on the main process with the averaged network.
        resume: continue from state.pt; bit-identical on a single CPU process. A finished training returns at once.
        like: checkpoint whose history, plan and training notes the new checkpoints continue.
        split: training images for `Task.begin_training`.
        kind: properties of this kind of training.
        identity: identifies data and classes, which must not change when resuming; None: not checked.

    Raises:
        UserError: options are invalid, there is nothing to resume, classes or data have changed, a label has a class
            that the network does not have, the disk is full, or the loss diverged.
    """
    opened = open_session(network, batches, settings, task, folder, hooks, terms, split, kind, identity)
    with opened as session, bar("epochs", refresh=4) as progress:
        run, told = session.run, False
        if resume:
            session.restore()
            run.log.message(resumption_line(session))
        epochs = progress.add_task("", total=run.known_epochs, completed=run.epoch)
        while not session.record.finished:
            started, whole = time.monotonic(), run.batch == 0
            run.log.begin(run.epoch)
            train_epoch(session, batches)
            means = session.epoch_means()
            for hook in session.hooks:
                hook.epoch_end(run)
            scores = evaluate_average(session, evaluate)
            row = make_row(run.epoch, means, scores, [group["lr"] for group in run.optimizer.param_groups])
            run.log.end(row)
            run.log.message(epoch_line(row, run.known_epochs, scores))
            for hook in session.hooks:
                hook.evaluated(run, scores)
            best = session.end_epoch(scores)
            write_checkpoints(session, like, row, best)
            session.save()
            progress.update(epochs, advance=1, total=run.epochs)
            if whole and not told and not session.record.finished and run.schedule.falls is None:
                run.log.message(time_line(time.monotonic() - started, run.epochs - run.epoch))
                told = True
        session.accelerator.wait_for_everyone()
        return result_of(session)


def result_of(session: Session) -> FitResult:
    """The result of a finished training."""
    run, record = session.run, session.record
    return FitResult(
        run.folder / "weights" / "best.safetensors",
        run.folder / "weights" / "last.safetensors",
        record.best_epoch,
        record.best_metrics,
        epochs=run.epoch,
        rows=tuple(run.log.rows),
        best_fitness=record.best_fitness,
    )


def train_epoch(session: Session, batches: Batches) -> None:
    """Trains on the remaining batches of the current epoch."""
    run, accelerator, pending = session.run, session.accelerator, 0
    run.network.train()
    with EpochBar(run.log, epoch_title(run.epoch, run.known_epochs), len(batches), run.batch) as shown:
        for batch in sealed(batches.epoch(run.epoch, start=run.batch)):
            set_rates(run.optimizer, run.schedule, run.iteration, run.epoch)
            images, targets = to_network(batch, session)
            pending += 1
            run.images_in_step += len(images) * accelerator.num_processes
            step_now = pending >= run.schedule.accumulate(run.iteration) or run.batch + 1 == len(batches)
            with nullcontext() if step_now else accelerator.no_sync(session.model):
                raw = session.model(images)
                loss, parts = session.objective(raw, targets, images)
                session.precision.backward(loss)
            session.meter.add(parts)
            run.batch += 1
            if step_now:
                session.step()
                pending = 0
            shown.advance(session.meter)


def resumption_line(session: Session) -> str:
    """Message about where a resumed training continues, or that it has finished."""
    run = session.run
    if session.record.finished:
        return f"This training has already finished ({run.epoch} epochs)."
    batch = f", after {run.batch} of its {run.schedule.batches} batches" if run.batch else ""
    return f"Resuming at epoch {run.epoch + 1} of {run.epochs}{batch}."


def sealed(batches: Iterable[Any]) -> Iterator[Any]:
    """The same batches; loading them does not change the random state of torch, so that a resumed epoch continues
    the sequence."""
    with sealed_randomness():
        iterator = iter(batches)
    while True:
        with sealed_randomness():
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch


def to_network(batch: BatchLike, session: Session) -> tuple[Tensor, Tensor]:
    """Prepared images, float [B, C, H, W], and targets on the device; rescaled in multi-scale training."""
    settings, device = session.settings, session.device
    session.check_targets(batch.targets)
    images = batch.images.to(device, non_blocking=True)
    if settings.channels_last and images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    images = session.task.prepare(images).to(session.parameters[0].dtype)
    if settings.multi_scale:
        stride = largest_stride(session.run.network) or 1
        images = rescale(images, settings.image_size, stride, (settings.seed, session.run.iteration))
    return images, batch.targets.to(device, non_blocking=True)


def rescale(images: Tensor, size: int, stride: int, seed: tuple[int, int]) -> Tensor:
    """Resizes images [B, C, H, W] to a random size from 0.5 to 1.5 times `size`; sides stay multiples of the stride."""
    drawn = int(np.random.default_rng(seed).integers(size // 2, size * 3 // 2 + stride)) // stride * stride
    factor = max(drawn, stride) / max(images.shape[2:])
    height, width = (math.ceil(side * factor / stride) * stride for side in images.shape[2:])
    if (height, width) == tuple(images.shape[2:]):
        return images
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)


def evaluate_average(session: Session, evaluate: Callable[[nn.Module], Scores] | None) -> Scores | None:
    """Evaluates the moving average on the main process, in epochs with an evaluation."""
    run, every = session.run, session.settings.val_every
    due = run.epoch + 1 == run.epochs or (every > 0 and (run.epoch + 1) % every == 0)
    if evaluate is None or not due or not run.is_main:
        return None
    with sealed_randomness():
        return evaluate(run.ema.network)


def write_checkpoints(session: Session, like: Checkpoint | None, row: EpochRow, best: bool) -> None:
    """Writes weights/last, and weights/best if this epoch is the best so far."""
    if not session.run.is_main:
        return
    training = {"settings": session.settings.to_dict(), "epoch": int(row["epoch"]), "results": dict(row)}
    changes: dict[str, Any] = {"training": training, "image_size": session.settings.image_size}
    if session.run.masks:
        changes["masks"] = session.run.masks
    checkpoint = Checkpoint.of(session.run.ema.network, like=like, **changes).half()
    weights = session.run.folder / "weights"
    save_checkpoint(checkpoint, weights / "last.safetensors")
    # If no epoch could become the best one, for example because all evaluations are disabled, the last one is used.
    if best or (session.record.finished and session.record.best_epoch < 0):
        save_checkpoint(checkpoint, weights / "best.safetensors")


def time_line(seconds: float, epochs: int) -> str:
    """Estimate of the remaining time, from the duration of one epoch including its evaluation."""
    return f"An epoch takes {duration(seconds)}: about {duration(seconds * epochs)} left."


def epoch_title(epoch: int, epochs: int | None) -> str:
    """ "2/30" for the second of 30 epochs, "2" if their number is not known yet."""
    return f"{epoch + 1}" if epochs is None else f"{epoch + 1}/{epochs}"


def epoch_line(row: EpochRow, epochs: int | None, scores: Scores | None) -> str:
    """Summary of one epoch in one line."""
    words = [f"epoch {epoch_title(int(row['epoch']), epochs)}"]
    for name, value in row.items():
        if name.startswith("train/"):
            words.append(f"{name.removeprefix('train/').removesuffix('_loss')} {value:.4f}")
    return "  ".join([*words, *(scores.words() if scores is not None else ())])
