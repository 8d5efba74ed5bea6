"""The verbs of the YOLOv5 family; each one delegates to the file that implements it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from secateur.distillation.pairing import check_pair
from secateur.distillation.settings import DistillSettings, HealDefaults
from secateur.families.detection.family import DetectionFamily
from secateur.families.detection.predictor import TorchPredictor
from secateur.families.detection.split import DetectionSplit
from secateur.families.outputs import Answer, Decoder, Form, Opened, Outputs
from secateur.families.reading import Split
from secateur.families.summary import BlockRow
from secateur.families.yolov5.anchors import fit_anchors_
from secateur.families.yolov5.architecture import YOLOv5
from secateur.families.yolov5.control import Narrowing, check_narrowing, narrow_start, narrow_widths
from secateur.families.yolov5.deploy.outputs import decoder_of, outputs_of
from secateur.families.yolov5.deploy.recognition import recognises
from secateur.families.yolov5.distillation import DISTILLATIONS
from secateur.families.yolov5.distillation.imitate import ImitateHead, check_heads, head_layers
from secateur.families.yolov5.formats.download import fetch, is_official
from secateur.families.yolov5.formats.state_dict import network_of, read_state
from secateur.families.yolov5.formats.upstream import read_upstream
from secateur.families.yolov5.formats.upstream_writer import write_own
from secateur.families.yolov5.hyp import YOLOv5Hyp
from secateur.families.yolov5.loss import DetectionLoss
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.rows import block_rows
from secateur.families.yolov5.start import fresh, pick_classes, with_config
from secateur.families.yolov5.topology import NEUTRAL_ANCHORS
from secateur.networks.checkpoint import Checkpoint
from secateur.training.settings import TrainSettings

logger = logging.getLogger("secateur")


class YOLOv5Family(DetectionFamily):
    """Anchor-based detectors built from the blocks of YOLOv5 model files, including YOLOv3."""

    kind = YOLOv5.kind
    title = "YOLOv5"
    architecture = YOLOv5
    opens = "YOLOv5 detectors with rows of 5 + classes values before non-maximum suppression"
    fallback = True
    hyp = YOLOv5Hyp
    imitated = "raw"
    healing = HealDefaults(near=1.5)

    def reads(self, file: Path) -> bool:
        """Whether the file has a suffix of PyTorch."""
        return file.suffix in {".pt", ".pth"}

    def read(self, file: Path, cfg: str | Path = "") -> Checkpoint:
        """Reads a `.pt` of upstream YOLOv5 or a fork; with `cfg` also a bare state dict."""
        if cfg and (state := read_state(file)) is not None:
            return Checkpoint.of(network_of(file, state, cfg))
        upstream = read_upstream(file)
        return Checkpoint(
            YOLOv5(upstream.topology),
            {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in upstream.tensors.items()},
            upstream.names,
            upstream.strides,
            training=upstream.training,
            image_size=upstream.image_size,
        )

    def fetch(self, file: Path) -> bool:
        """Downloads published checkpoints by name, such as yolov5s.pt."""
        if not is_official(file.name):
            return False
        fetch(file)
        return True

    def flaw(self, checkpoint: Checkpoint) -> str:
        """Checks that every level has a stride and every class a name."""
        architecture = checkpoint.architecture
        assert isinstance(architecture, YOLOv5)
        if len(checkpoint.strides) != len(architecture.topology.anchors):
            return "broken strides"
        if set(checkpoint.names) != set(range(architecture.nc)):
            return f"{len(checkpoint.names):,} names for {architecture.nc:,} classes"
        return ""

    def describes(self, cfg: str) -> bool:
        """Whether `cfg` is a model YAML or a name of the family."""
        return True

    def fresh(self, cfg: str, names: Mapping[int, str], options: Mapping[str, Any]) -> Checkpoint:
        """A detector from a model YAML; the hyper-parameter `anchors` is the number of anchors per level."""
        return fresh(cfg, names, int(options.get("anchors", 0)))

    def configured(self, checkpoint: Checkpoint, cfg: str, names: Mapping[int, str]) -> Checkpoint:
        """The checkpoint with the anchors of a model YAML for the same network."""
        return with_config(checkpoint, cfg, names)

    def pick_classes(self, checkpoint: Checkpoint, classes: tuple[int, ...]) -> Checkpoint:
        """Keeps the outputs of the box, the objectness and these classes of every anchor."""
        return pick_classes(checkpoint, classes)

    def outputs(self, network: nn.Module, form: Form) -> Outputs:
        """Decoded rows, maps of the head, or boxes after suppression."""
        assert isinstance(network, Detector)
        return outputs_of(network, form)

    def decoder(self, opened: Opened) -> Decoder | None:
        """See `Family`."""
        return decoder_of(opened)

    def recognises(self, answer: Answer) -> Decoder | str:
        """Recognises rows [B, N, 5 + nc] of exports of YOLOv5."""
        return recognises(answer)

    def write(self, network: nn.Module, file: Path, image_size: int) -> str:
        """Writes a `.pt` that unmodified YOLOv5 loads; logs a notice if anchors must still be computed by a
        training."""
        assert isinstance(network, Detector)
        if network.topology.anchors_pending:
            logger.warning(NEUTRAL_ANCHORS)
        return write_own(network, file, image_size)

    def predictor(self, network: nn.Module, precision: str = "fp32") -> TorchPredictor:
        """See `Family`; logs a notice if anchors must still be computed by a training."""
        assert isinstance(network, Detector)
        predictor = TorchPredictor(network, precision)
        if network.topology.anchors_pending:
            logger.warning(NEUTRAL_ANCHORS)
        return predictor

    def loss(self, network: nn.Module, settings: TrainSettings) -> DetectionLoss:
        """Box, objectness and class terms; `settings` provides their gains and the image size."""
        assert isinstance(network, Detector)
        return DetectionLoss(network, settings.hyp.read(YOLOv5Hyp), settings.image_size, settings.label_smoothing)

    def begin_training(self, network: nn.Module, split: Split | None, settings: TrainSettings) -> list[str]:
        """Runs AutoAnchor if the training has labels; anchors that a model file leaves to be computed are always
        computed."""
        assert isinstance(network, Detector)
        pending = network.topology.anchors_pending
        if isinstance(split, DetectionSplit) and (settings.own.autoanchor or pending):
            ratio = settings.hyp.read(YOLOv5Hyp).anchor_t
            return [str(fit_anchors_(network, split.index, settings.image_size, ratio, settings.seed))]
        return [NEUTRAL_ANCHORS] if pending else []

    def head(self, network: nn.Module) -> tuple[str, ...]:
        """The convolutions of the levels."""
        assert isinstance(network, Detector)
        return head_layers(network)

    def check_teacher(self, student: Checkpoint, teacher: Checkpoint, name: str = "") -> None:
        """Checks classes, levels, and the number of anchors."""
        check_pair(student, teacher, name)  # before a network of another family is built
        check_heads(_built(student), _built(teacher), name)

    def distillations(self) -> tuple[str, ...]:
        """The losses of this head and of its inputs."""
        return tuple(DISTILLATIONS)

    def distillation(
        self,
        settings: DistillSettings,
        network: nn.Module,
        start: Checkpoint,
        teacher: Checkpoint,
        train: TrainSettings,
    ) -> ImitateHead:
        """The losses of this head, with the gains for the hyper-parameters and image size of the training."""
        assert isinstance(network, Detector)
        hyp = train.hyp.read(YOLOv5Hyp)
        plans = {"plan": start.plan, "teacher_plan": teacher.plan}
        return ImitateHead(settings, network, _built(teacher), hyp, train.image_size, name=settings.teacher, **plans)

    def check_narrow(self, dense: Checkpoint) -> None:
        """Checks that the blocks can be narrowed."""
        check_narrowing(dense)

    def narrowing(self, dense: Checkpoint, final: Checkpoint, image_size: int) -> dict[str, Any]:
        """One multiplier for all widths, as `width_multiple`."""
        found = narrow_widths(dense, final, image_size)
        return found.to_dict() | {"note": found.note()}

    def narrow(self, dense: Checkpoint, start: Checkpoint, narrowing: Mapping[str, Any], seed: int) -> Checkpoint:
        """The topology with these widths."""
        return narrow_start(dense, start, Narrowing.from_dict(narrowing), seed)

    def rows(self, network: nn.Module, flops: Mapping[str, int] | None) -> tuple[BlockRow, ...]:
        """One row per block of the topology."""
        assert isinstance(network, Detector)
        return block_rows(network, flops)


def _built(checkpoint: Checkpoint) -> Detector:
    detector = checkpoint.build()
    assert isinstance(detector, Detector)
    return detector
