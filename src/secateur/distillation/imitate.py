"""Distillation as a loss term of the training loop: runs the teacher beside the student and asks every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from secateur.distillation.losses import DISTILLATIONS, Imitation, View
from secateur.distillation.pairing import anchor_order, check_pair, neck_channels
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError
from secateur.families.yolov5.loss import DetectionLoss
from secateur.families.yolov5.model import Detector
from secateur.training.distributed import sum_over_processes, world_size
from secateur.training.hooks import Hook
from secateur.training.hyp import Hyp
from secateur.training.optimization.precision import full_precision
from secateur.training.run import TrainingRun


class Imitate(Hook):
    """A term, and the hook that tells the term where the training is: give it to `fit` as both.

    The teacher is a copy with BatchNorm folded in, in eval mode, without gradients; it sees the student's images under
    the student's autocast. It is no part of the student, so neither the optimizer nor a checkpoint holds it. All is a
    function of the step; a resumed training continues as if it had not stopped.

    Args:
        student: the very detector that is trained; its anchors are read when they are needed, after AutoAnchor.
        teacher: left as it is.
        name: of the teacher, for messages.
        plan, teacher_plan: of the two checkpoints; `features` needs them where the student was cut.

    Raises:
        UserError: an unknown method, or a teacher that does not fit.
    """

    def __init__(
        self,
        settings: DistillSettings,
        student: Detector,
        teacher: Detector,
        hyp: Hyp,
        image_size: int,
        *,
        name: str = "",
        plan: Mapping[str, Any] | None = None,
        teacher_plan: Mapping[str, Any] | None = None,
    ) -> None:
        kinds = [DISTILLATIONS[method] for method in settings.methods]
        check_pair(student, teacher, name)
        self.settings, self.student = settings, student
        detection = DetectionLoss(student, hyp, image_size)
        self.methods: list[Imitation] = [kind(settings, detection) for kind in kinds]
        self.needs_features = any(method.features for method in self.methods)
        self.channels: tuple[Tensor, ...] = ()
        if self.needs_features:
            self.channels = neck_channels(student, teacher, plan, teacher_plan)
        self.teacher = teacher.fused().eval()
        self.run: TrainingRun | None = None
        self._placed = False
        self._orders: tuple[Tensor, ...] = ()
        self._seen: list[Tensor] = []
        self._taught: list[Tensor] = []
        self._precision: torch.dtype | None = None
        if self.needs_features:
            self.teacher.head.register_forward_pre_hook(lambda _, inputs: self._taught.extend(inputs[0]))

    def start(self, run: TrainingRun) -> None:
        """Begins to watch the student; the loop takes the watch off at the end of the training."""
        self.run, self.student = run, run.detector
        run.handles.append(self.watch(run.detector))

    def watch(self, student: Detector) -> RemovableHandle:
        """Notes, in every forward pass with gradients, the precision and, where needed, what feeds the head."""
        head = student.head

        # A plain function: a copy of the student then carries a reference to it and not a copy of all it knows.
        def see(module: nn.Module, inputs: tuple[list[Tensor]]) -> None:
            if module is not head or not torch.is_grad_enabled():
                return
            kind = inputs[0][0].device.type
            self._precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
            if self.needs_features:
                self._seen = list(inputs[0])

        return head.register_forward_pre_hook(see)

    def state_dict(self) -> dict[str, Any]:
        """Nothing that changes; the options, so that a resumption with others is noticed."""
        return {name: value for name, value in asdict(self.settings).items() if name != "teacher"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compares the options.

        Raises:
            UserError: one has changed.
        """
        for name, value in self.state_dict().items():
            if state.get(name) != value:
                option = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"Cannot resume: {option} was {state.get(name)!r} and is {value!r} now; repeat the first value."
                )

    def ramp(self) -> float:
        """Factor of the warm-up at this batch, in 0..1; 1 outside of a training."""
        if self.run is None or self.settings.distill_warmup == 0:
            return 1.0
        epochs = self.run.iteration / self.run.schedule.batches
        return min(epochs / self.settings.distill_warmup, 1.0)

    def __call__(self, raw: Sequence[Tensor], targets: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of all methods times the total batch size, and its parts (detached, with all factors but that)."""
        batch = sum_over_processes(raw[0].new_tensor(float(len(images)), dtype=torch.float32))
        view = self.view(raw, targets, images, len(images) / batch)
        ramp, parts = self.ramp(), dict[str, Tensor]()
        for method in self.methods:
            factor = self.settings.distill_feature_weight if method.features else self.settings.distill_weight
            for name, value in method(view).items():
                # Methods that are joined may have parts of the same name.
                parts[name] = parts.get(name, 0.0) + value * (factor * ramp)
        total = torch.stack(list(parts.values())).sum() * (batch * world_size())
        return total, {name: value.detach() for name, value in parts.items()}

    def view(self, raw: Sequence[Tensor], targets: Tensor, images: Tensor, share: Tensor) -> View:
        """What the methods compare; nothing of it is kept afterwards."""
        self._place(images)
        seen, self._seen = self._seen, []
        if self.needs_features and not seen:
            raise RuntimeError("Imitate.watch(student) has to come before the student's forward pass")
        kind, precision = images.device.type, self._precision
        with torch.no_grad():
            if precision is None:
                taught = self.teacher(images)
            else:
                with torch.autocast(kind, dtype=precision):
                    taught = self.teacher(images)
        features, self._taught = self._taught, []
        theirs = full_precision(self.teacher.head.anchors)
        pairs = zip(features, self.channels, strict=True)
        return View(
            student=tuple(full_precision(level) for level in raw),
            teacher=tuple(full_precision(level[:, order]) for level, order in zip(taught, self._orders, strict=True)),
            student_anchors=full_precision(self.student.head.anchors),
            teacher_anchors=torch.stack([a[order] for a, order in zip(theirs, self._orders, strict=True)]),
            targets=targets.to(theirs.dtype),
            share=share,
            student_features=tuple(full_precision(level) for level in seen),
            teacher_features=tuple(full_precision(level[:, channels]) for level, channels in pairs),
        )

    def _place(self, images: Tensor) -> None:
        """Brings the teacher to the images' device and layout before its first batch."""
        if self._placed:
            return
        self.teacher.to(images.device, images.dtype)
        if images.is_contiguous(memory_format=torch.channels_last):
            self.teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.channels = tuple(channels.to(images.device) for channels in self.channels)
        pairs = zip(full_precision(self.student.head.anchors), self.teacher.head.anchors, strict=True)
        self._orders = tuple(anchor_order(mine, theirs) for mine, theirs in pairs)
        self._placed = True
