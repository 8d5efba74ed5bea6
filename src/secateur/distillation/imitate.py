"""Distillation as a loss term of the training loop: runs the teacher on the images of the student and applies all
methods."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from secateur.distillation.methods import Method, Views
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.training.distributed import sum_over_processes, world_size
from secateur.training.hooks import Hook
from secateur.training.optimization.precision import full_precision, outputs_in_full_precision
from secateur.training.run import TrainingRun


@runtime_checkable
class _Folds(Protocol):
    """A network that can create a faster copy of itself."""

    def fused(self) -> Any:
        """A copy in eval mode, without gradients, with folded norms if possible."""


def teaching(network: nn.Module) -> nn.Module:
    """A copy of a network for teaching: in eval mode, without gradients, with folded norms if possible."""
    if isinstance(network, _Folds):
        folded: nn.Module = network.fused().eval()
        return folded
    return copy.deepcopy(network).eval().requires_grad_(False)


class Imitate(Hook):
    """A loss term, and the hook that informs it about the position in the training; pass it to `fit` as both.

    The teacher is a copy in eval mode, without gradients; it gets the images and the autocast of the student. It is not
    part of the student, so it is in neither the optimizer nor a checkpoint. Everything depends only on the step, so a
    resumed training continues exactly.

    Args:
        student: the network that is trained.
        teacher: not changed.
        methods: what to compare.
        heads: names of the layers of the heads of student and teacher whose inputs are compared.
        channels: for each of these layers, the channels of the teacher that correspond to those of the student, int64
            [c], see `fed_channels`.
    """

    def __init__(
        self,
        settings: DistillSettings,
        student: nn.Module,
        teacher: nn.Module,
        methods: Sequence[Method],
        *,
        heads: tuple[Sequence[str], Sequence[str]] = ((), ()),
        channels: tuple[Tensor, ...] = (),
    ) -> None:
        self.settings, self.student, self.methods = settings, student, tuple(methods)
        self.needs_features = any(method.features for method in self.methods)
        self.heads, self.channels = heads if self.needs_features else ((), ()), channels
        self.teacher = teaching(teacher)
        self.run: TrainingRun | None = None
        self._placed = False
        self._seen: dict[str, Tensor] = {}
        self._taught: dict[str, Tensor] = {}
        self._precision: torch.dtype | None = None
        for name in self.heads[1]:
            self._note(self.teacher.get_submodule(name), name, self._taught)

    def start(self, run: TrainingRun) -> None:
        """Starts observing the student; the loop removes the observation at the end of the training."""
        self.run, self.student = run, run.network
        run.handles += self.watch(run.network)

    def watch(self, student: nn.Module) -> list[RemovableHandle]:
        """Records, in every forward pass with gradients, the precision and, if needed, the inputs of the head."""

        # A plain function: a copy of the student then holds a reference to it instead of a copy of this object.
        def see(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if module is student and torch.is_grad_enabled():
                kind = next(leaf for leaf in inputs if isinstance(leaf, Tensor)).device.type
                self._precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None

        layers = [self._note(student.get_submodule(name), name, self._seen, grad=True) for name in self.heads[0]]
        return [student.register_forward_pre_hook(see), *layers]

    @staticmethod
    def _note(layer: nn.Module, name: str, notes: dict[str, Tensor], *, grad: bool = False) -> RemovableHandle:
        """Records the input of a layer, with channels in dimension 1; with `grad`, only in passes with gradients."""

        def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if module is layer and (not grad or torch.is_grad_enabled()):
                notes[name] = inputs[0].movedim(-1, 1) if isinstance(layer, nn.Linear) else inputs[0]

        return layer.register_forward_pre_hook(note)

    def state_dict(self) -> dict[str, Any]:
        """The options, so that resuming with other options is detected."""
        return {name: value for name, value in asdict(self.settings).items() if name != "teacher"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compares the options.

        Raises:
            UserError: an option has changed.
        """
        for name, value in self.state_dict().items():
            if state.get(name) != value:
                option = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"Cannot resume: {option} was {state.get(name)!r} and is {value!r} now. Use the previous value."
                )

    def ramp(self) -> float:
        """Factor of the warm-up at this batch, 0..1; 1 outside of a training."""
        if self.run is None or self.settings.distill_warmup == 0:
            return 1.0
        epochs = self.run.iteration / self.run.schedule.batches
        return min(epochs / self.settings.distill_warmup, 1.0)

    def __call__(self, raw: Any, targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of all methods times the total batch size, a scalar, and its terms (detached, with all factors
        except the batch size)."""
        batch = sum_over_processes(images.new_tensor(float(len(images)), dtype=torch.float32))
        view = self.view(raw, targets, images, len(images) / batch)
        ramp, parts = self.ramp(), dict[str, Tensor]()
        for method in self.methods:
            factor = self.settings.distill_feature_weight if method.features else self.settings.distill_weight
            for name, value in method(view).items():
                # Combined methods may have terms of the same name.
                parts[name] = parts.get(name, 0.0) + value * (factor * ramp)
        total = torch.stack(list(parts.values())).sum() * (batch * world_size())
        return total, {name: value.detach() for name, value in parts.items()}

    def view(self, raw: Any, targets: Tensor, images: Tensor, share: Tensor) -> Views:
        """What the methods compare for one batch of images [B, C, H, W]; nothing is kept afterwards. Targets have
        any shape."""
        self._place(images)
        if not self._seen.keys() >= set(self.heads[0]):
            raise RuntimeError("Call Imitate.watch(student) before the forward pass of the student")
        seen = [self._seen.pop(name) for name in self.heads[0]]
        kind, precision = images.device.type, self._precision
        with torch.no_grad():
            if precision is None:
                taught = self.teacher(images)
            else:
                with torch.autocast(kind, dtype=precision):
                    taught = self.teacher(images)
        pairs = zip((self._taught.pop(name) for name in self.heads[1]), self.channels, strict=True)
        return self.views(
            raw,
            taught,
            targets,
            share,
            tuple(full_precision(level) for level in seen),
            tuple(full_precision(level[:, channels]) for level, channels in pairs),
        )

    def views(
        self,
        raw: Any,
        taught: Any,
        targets: Tensor,
        share: Tensor,
        seen: tuple[Tensor, ...] = (),
        features: tuple[Tensor, ...] = (),
    ) -> Views:
        """The outputs and the inputs of the head, [B, c, ...] each, for the methods; a family may add what its
        methods need."""
        student, teacher = outputs_in_full_precision(raw), outputs_in_full_precision(taught)
        return Views(student, teacher, targets, share, seen, features)

    def compare(self, raw: Any, taught: Any, images: Tensor) -> Tensor:
        """Loss of the outputs without factors, a scalar, for the evaluation on held-out images [B, C, H, W]."""
        view = self.views(raw, taught, images.new_zeros((0, 6)), images.new_ones(()))
        parts = [value for method in self.methods if not method.features for value in method(view).values()]
        return torch.stack(parts).sum()

    def _place(self, images: Tensor) -> None:
        """Moves the teacher to the device and memory format of the images before its first batch."""
        if self._placed:
            return
        self.teacher.to(images.device, images.dtype)
        if images.is_contiguous(memory_format=torch.channels_last):
            self.teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.channels = tuple(channels.to(images.device) for channels in self.channels)
        self._placed = True
