"""A training session: all objects that the loop uses, and how they are created, closed, saved and restored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from secateur.errors import UserError, shown
from secateur.machine import pick_device
from secateur.scores import Scores
from secateur.training.batches import Batches
from secateur.training.batchnorm import separate_batchnorm_, synchronise_batchnorm_
from secateur.training.distributed import (
    of_first,
    rank_and_world,
    share_gradients,
    start_accelerator,
    sum_over_processes,
)
from secateur.training.hooks import Hook, attach, detach
from secateur.training.objective import Objective, Term
from secateur.training.optimization.ema import Ema
from secateur.training.optimization.optimizer import build_optimizer, frozen_parameters
from secateur.training.optimization.precision import Precision, choose_precision, outputs_in_full_precision
from secateur.training.optimization.schedules import Schedule
from secateur.training.results import LossMeter, RunLog, diverged
from secateur.training.run import TrainingRun
from secateur.training.settings import TrainSettings, under_present_names
from secateur.training.state import TrainingIdentity, random_state, read_state, set_random_state, write_state
from secateur.training.task import Task, check_strides

# Options that may differ when resuming, because they do not affect the result.
FREE_OPTIONS = ("workers", "patience", "save_every_steps", "tensorboard", "device", "wait_minutes")
CLIP = 10.0  # maximum gradient norm, as in YOLOv5


@dataclass
class TrainingRecord:
    """The best epoch so far, and whether the training has finished."""

    best_fitness: float = -1.0
    best_epoch: int = -1
    best_metrics: dict[str, float] = field(default_factory=dict)
    finished: bool = False

    def update(self, epoch: int, scores: Scores | None) -> bool:
        """Processes an evaluation; True if the epoch is the best. Without evaluations, the newest epoch is the best."""
        if scores is None:
            if self.best_fitness < 0:
                self.best_epoch = epoch
            return self.best_fitness < 0
        if not scores.fitness > self.best_fitness:
            return False
        self.best_fitness, self.best_epoch = scores.fitness, epoch
        self.best_metrics = scores.to_dict()
        return True


class Forward(nn.Module):
    """The forward pass in the precision of the training; this module is wrapped for several processes, not the
    network."""

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, images: Tensor) -> Any:
        """Outputs of the network for prepared images [B, C, H, W]; floating-point tensors are at least float32."""
        with self.precision.autocast():
            raw = self.network(images)
        return outputs_in_full_precision(raw)


@dataclass(frozen=True)
class TrainingKind:
    """Properties of a kind of training, besides hooks, terms and options.

    Attributes:
        labels: whether the loss of the task is part of the objective; otherwise only the terms are used.
        average_decay, average_ramp: parameters of the moving average, see `Ema`.
    """

    labels: bool = True
    average_decay: float = 0.9999
    average_ramp: float = 2000.0


@dataclass
class Session:
    """All objects that the loop uses; the last hook is the EMA."""

    settings: TrainSettings
    task: Task
    accelerator: Accelerator
    device: torch.device
    precision: Precision
    model: nn.Module
    objective: Objective
    run: TrainingRun
    hooks: tuple[Hook, ...]
    parameters: list[nn.Parameter]
    meter: LossMeter
    record: TrainingRecord = field(default_factory=TrainingRecord)
    identity: TrainingIdentity | None = None
    labels: bool = True

    def check_targets(self, targets: Tensor) -> None:
        """Checks that the loss can read the targets, which are on the CPU and have any shape; skipped without labels.

        Raises:
            UserError: for example, the network does not have a class.
        """
        if self.labels:
            self.task.check_targets(self.run.network, targets)

    def check_finite(self) -> None:
        """Stops a training that has diverged; an fp16 scaler may skip up to half of the batches.

        Raises:
            UserError: the training has diverged; the message names the epoch and possible remedies.
        """
        allowed = self.meter.batches // 2 if self.precision.scaler is not None else 0
        if float(self.meter.bad) > allowed:
            raise diverged(self.run.epoch, state_kept=self.run.epoch > 0)

    def step(self) -> None:
        """Runs one optimizer step on the accumulated gradients, including hooks."""
        optimizer = self.run.optimizer
        norm = self.precision.clip_(optimizer, self.parameters, CLIP)
        if self.precision.scaler is None:
            self.meter.note(norm)
        if self.device.type == "cpu":
            self.check_finite()  # before weights are damaged; only on the CPU, where this does not wait for a device
        self.precision.step(optimizer)
        optimizer.zero_grad(set_to_none=True)
        self.run.images_in_step = 0
        every = self.settings.save_every_steps
        if every and self.run.step % every == 0 and self.run.batch < self.run.schedule.batches:
            self.check_finite()
            self.save()

    def epoch_means(self) -> dict[str, float]:
        """Mean loss terms of the finished epoch over all processes; resets the meter."""
        self.check_finite()
        means = self.meter.means(sum_over_processes(self.meter.sums))
        self.meter = LossMeter(self.device)
        return means

    def end_epoch(self, scores: Scores | None) -> bool:
        """Records the evaluation and moves to the next epoch; True if this epoch is the best so far."""
        # A network that does not meet the target of a method yet, for example of sparsity, cannot be the best.
        ready = all(hook.ready(self.run) for hook in self.hooks)
        best = ready and self.record.update(self.run.epoch, scores)
        patience, waited = self.settings.patience, self.run.epoch - self.record.best_epoch
        stop = patience > 0 and self.record.best_fitness >= 0 and waited >= patience
        # Sparse training loses accuracy before its schedule ends, so it must not stop early.
        stop = stop and all(hook.may_stop(self.run) for hook in self.hooks)
        if stop and self.run.epoch + 1 < self.run.epochs:
            self.run.log.message(f"No better epoch since {self.record.best_epoch + 1}. Stopping (patience {patience}).")
        self.record.finished = of_first(stop or self.run.epoch + 1 >= self.run.epochs)
        self.run.epoch, self.run.batch = self.run.epoch + 1, 0
        return best

    def save(self) -> None:
        """Writes the state for resuming; for a finished training only the record."""
        generators = gather_object([random_state()]) if self.accelerator.num_processes > 1 else [random_state()]
        if not self.run.is_main:
            return
        state: dict[str, Any] = {
            "settings": self.settings.to_dict(),
            "record": asdict(self.record),
            "rows": self.run.log.rows,
            "run": {"epoch": self.run.epoch, "batch": self.run.batch, "step": self.run.step},
        }
        if self.identity is not None:
            state["subject"] = self.identity.to_dict()
        if not self.record.finished:
            scaler = self.precision.scaler
            state |= {
                "model": self.run.network.state_dict(),
                "optimizer": self.run.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
                "hooks": [(type(hook).__name__, hook.state_dict()) for hook in self.hooks],
                "meter": self.meter.state_dict(),
                "generators": generators,
            }
        write_state(self.run.folder, state)

    def restore(self) -> None:
        """Restores the saved state.

        Raises:
            UserError: there is no state, it is damaged, or it has other options, classes or data.
        """
        state = read_state(self.run.folder)
        try:
            self._restore(state)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
            raise UserError(
                f"Cannot resume in {self.run.folder}: its state belongs to another network, or is damaged. Start a new "
                "training."
            ) from error

    def _restore(self, state: dict[str, Any]) -> None:
        now = self.settings.to_dict()
        if not self.labels:  # preparations by the family that need labels are skipped
            now = {name: value for name, value in now.items() if not hasattr(self.settings.own, name)}
        _same_options(under_present_names(state["settings"]), now)
        if self.identity is not None:
            self.identity.check(self.run.folder, state)
        self.record = TrainingRecord(**state["record"])
        self.run.log.restore(state["rows"])
        counters = state["run"]
        self.run.epoch, self.run.batch, self.run.step = counters["epoch"], counters["batch"], counters["step"]
        if self.record.finished:
            return
        names = [type(hook).__name__ for hook in self.hooks]
        if [name for name, _ in state["hooks"]] != names:
            raise UserError(
                f"Cannot resume in {self.run.folder}: it was trained with other methods. Use the same options."
            )
        self.run.network.load_state_dict(state["model"])
        self.run.optimizer.load_state_dict(state["optimizer"])
        if self.precision.scaler is not None and state["scaler"]:
            self.precision.scaler.load_state_dict(state["scaler"])
        for hook, (_, saved) in zip(self.hooks, state["hooks"], strict=True):
            hook.load_state_dict(saved)
        self.meter.load_state_dict(state["meter"])
        mine = self.accelerator.process_index
        if len(state["generators"]) == self.accelerator.num_processes:
            set_random_state(state["generators"][mine])


@contextmanager
def open_session(
    network: nn.Module,
    batches: Batches,
    settings: TrainSettings,
    task: Task,
    folder: Path,
    hooks: Sequence[Hook],
    terms: Sequence[Term],
    split: Any,
    kind: TrainingKind,
    identity: TrainingIdentity | None = None,
) -> Iterator[Session]:
    """Prepares everything for the first step; on exit, returns the network to a plain module."""
    device, (_, world) = pick_device(settings.device), rank_and_world()
    if settings.batch_size % world:
        raise UserError(
            f"Option batch_size is {settings.batch_size}, the total over {world} processes. Set a multiple of {world}."
        )
    precision = Precision(choose_precision(settings.amp, device.type), device.type)
    tensorboard = settings.tensorboard and find_spec("tensorboard") is not None
    accelerator = start_accelerator(device, folder, tensorboard=tensorboard, wait_minutes=settings.wait_minutes)
    torch.manual_seed(settings.seed + accelerator.process_index)
    log = RunLog(folder, accelerator)
    frozen = frozen_parameters(network, settings.freeze)
    check_strides(network, settings)
    # The order matters: device, changes by the family, then copies and optimizers that reference the tensors.
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    network.to(device=device).to(memory_format=layout)  # type: ignore[call-overload]
    for line in task.begin_training(network, split, settings):
        log.message(line)
    ema = Ema(network, kind.average_decay, kind.average_ramp)
    for parameter in frozen:
        parameter.requires_grad_(False)
    schedule = Schedule.of(settings, len(batches))
    optimizer = build_optimizer(network, settings, schedule, scaled=precision.scaler is not None)
    if world > 1 and settings.sync_bn:
        synchronise_batchnorm_(network, device.type)
    run = TrainingRun(network, ema, optimizer, schedule, folder, log, accelerator.is_main_process)
    session = Session(
        settings=settings,
        task=task,
        accelerator=accelerator,
        device=device,
        precision=precision,
        model=share_gradients(Forward(network, precision), device),
        objective=Objective([task.loss(network, settings), *terms] if kind.labels else terms),
        run=run,
        hooks=(*hooks, ema),
        parameters=[parameter for parameter in network.parameters() if parameter.requires_grad],
        meter=LossMeter(device),
        identity=identity,
        labels=kind.labels,
    )
    try:
        for hook in session.hooks:
            hook.start(run)
        attach(run, session.hooks)
        yield session
    finally:
        detach(run)
        separate_batchnorm_(network)
        for parameter in frozen:
            parameter.requires_grad_(True)
        log.close()


def _same_options(before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if name not in FREE_OPTIONS and before.get(name) != value:
            raise UserError(
                f"Cannot resume: option {name} was {shown(before.get(name))} and is {value!r} now. Use the previous "
                "value."
            )
