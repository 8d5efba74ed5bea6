"""Attaches hooks of Secateur to the optimizer of a trainer of the package, and stores what a resumed training needs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from accelerate import Accelerator
from torch import nn

from secateur.families.training import OwnTraining
from secateur.families.ultralytics.network import UltralyticsNetwork
from secateur.training.hooks import attach
from secateur.training.optimization.schedules import Schedule
from secateur.training.results import RunLog
from secateur.training.run import TrainingRun
from secateur.training.state import write_state


class TrainerHooks:
    """The hooks of a training, attached to a trainer of the package.

    Args:
        network: wraps the module of the trainer, so that tensors have the names of Secateur.
        state: state of an interrupted training to resume; None for a new one.
    """

    NOT_READY = -1.0
    """Fitness of an epoch at whose end a method has not reached its target."""

    def __init__(self, training: OwnTraining, network: UltralyticsNetwork, state: Any) -> None:
        self.training, self.network, self.state = training, network, state
        self.run: TrainingRun | None = None
        self.best_epoch = int(state["best_epoch"]) if state else 0
        self.saved: dict[int, Any] = dict(state["hooks"]) if state else {}

    def events(self) -> Iterator[tuple[str, Callable[[Any], None]]]:
        """Callbacks of the trainer by event; none without hooks."""
        if self.training.hooks:
            yield "on_pretrain_routine_end", self._begin
            yield "on_train_epoch_start", self._begin_epoch
            yield "on_train_batch_start", self._count
            yield "on_train_epoch_end", self._end_epoch

    def ready(self, trainer: Any) -> bool:
        """Whether the network of this epoch may become the best one."""
        run = self.run
        return run is None or all(hook.ready(run) for hook in self.training.hooks)

    def save(self, trainer: Any, *, better: bool) -> None:
        """Stores the state for a resumed training before the package saves this epoch; the previous state is kept
        too."""
        if better:
            self.best_epoch = int(trainer.epoch)
        epoch, states = int(trainer.epoch), [hook.state_dict() for hook in self.training.hooks]
        step = self.run.step if self.run is not None else 0
        self.saved = {
            epoch: {"states": states, "step": step},
            **{e: s for e, s in self.saved.items() if e == epoch - 1},
        }
        fitness = trainer.best_fitness
        state = {
            "subject": self.training.identity.to_dict(),
            "epoch": epoch,
            "best_epoch": self.best_epoch,
            "best_fitness": -1.0 if fitness is None else float(fitness),
            "hooks": self.saved,
            "masks": dict(self.run.masks) if self.run is not None else {},
            "finished": False,
        }
        write_state(self.training.folder, state)

    def _begin(self, trainer: Any) -> None:
        """Starts the hooks on the network of the trainer, on its device."""
        self.network.model = _inner(trainer.model)
        settings, start = self.training.settings, int(trainer.start_epoch)
        self.run = run = TrainingRun(
            self.network,
            _Average(self.network, trainer),
            trainer.optimizer,
            Schedule.of(settings, len(trainer.train_loader)),
            self.training.folder,
            RunLog(self.training.folder, Accelerator(cpu=trainer.device.type == "cpu")),
            epoch=start,
        )
        for hook in self.training.hooks:
            hook.start(run)
        if start:
            kept = self.saved[start - 1]
            run.step = int(kept["step"])
            for hook, state in zip(self.training.hooks, kept["states"], strict=True):
                hook.load_state_dict(state)
        attach(run, self.training.hooks)
        run.handles.append(run.optimizer.register_step_post_hook(lambda *_: self._forget()))

    def _begin_epoch(self, trainer: Any) -> None:
        assert self.run is not None
        self.run.epoch, self.run.batch = int(trainer.epoch), 0
        self.run.log.begin(self.run.epoch)

    def _count(self, trainer: Any) -> None:
        """Adds the images of the current batch to the current step."""
        assert self.run is not None
        self.run.images_in_step += int(trainer.batch_size)
        self.run.batch += 1

    def _end_epoch(self, trainer: Any) -> None:
        assert self.run is not None
        for hook in self.training.hooks:
            hook.epoch_end(self.run)

    def _forget(self) -> None:
        assert self.run is not None
        self.run.images_in_step = 0


class _Average:
    """The moving average of the trainer, with the tensor names of Secateur."""

    def __init__(self, network: UltralyticsNetwork, trainer: Any) -> None:
        self._shell: Any = copy.deepcopy(network)
        self._trainer = trainer

    @property
    def network(self) -> nn.Module:
        """The current average of the trainer."""
        self._shell.model = _inner(self._trainer.ema.ema)
        shell: nn.Module = self._shell
        return shell


def _inner(model: Any) -> Any:
    """The network itself, if the package has wrapped it for distillation."""
    return getattr(model, "student_model", model)
