"""The options of every command, a frozen dataclass each: the one place of their defaults (imports no torch)."""

from __future__ import annotations

from dataclasses import dataclass, field

from secateur.distillation.settings import DistillSettings
from secateur.pruning.settings import PruneSettings
from secateur.sparsity.settings import SparsifySettings, WeightSettings
from secateur.training.settings import TrainSettings


@dataclass(frozen=True)
class Place:
    """Where a command writes."""

    project: str = ""
    """Folder of runs (default: runs/COMMAND)."""
    name: str = "exp"
    """Name of the run folder; exp, exp2, exp3, ... so that nothing is overwritten."""
    json: bool = False
    """Print the summary alone, as JSON, on standard output."""


@dataclass(frozen=True)
class TrainOptions:
    """Train a detector: from a checkpoint (any width), or from scratch with --cfg."""

    data: str = ""
    """Data set: a data.yaml."""
    weights: str = ""
    """Checkpoint to start from: .safetensors, stock YOLOv5 .pt, or an official name such as yolov5n.pt."""
    cfg: str = ""
    """Model YAML or name (yolov5s, yolov3-tiny, ...); needed without --weights."""
    hyp: str = "scratch-low"
    """Hyper-parameters: scratch-low, scratch-med, scratch-high, finetune, or a YAML file."""
    resume: str = ""
    """Go on with an interrupted run: its folder, or nothing for the newest."""
    train: TrainSettings = field(default_factory=TrainSettings)
    sparsity: WeightSettings = field(default_factory=WeightSettings)
    distillation: DistillSettings = field(default_factory=DistillSettings)
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class SparsifyOptions:
    """Train with a penalty that drives the scales of dispensable channels to zero."""

    data: str = ""
    """Data set: a data.yaml."""
    weights: str = ""
    """Trained checkpoint."""
    hyp: str = "scratch-low"
    """Hyper-parameters: scratch-low, scratch-med, scratch-high, finetune, or a YAML file."""
    resume: str = ""
    """Go on with an interrupted run: its folder, or nothing for the newest."""
    sparsify: SparsifySettings = field(default_factory=SparsifySettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    distillation: DistillSettings = field(default_factory=DistillSettings)
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class PruneOptions:
    """Make a detector smaller: --layers removes bottlenecks, a budget cuts channels, --unstructured zeroes weights."""

    weights: str = ""
    """Checkpoint to prune; a pruned one can be pruned again."""
    data: str = ""
    """Data set: a data.yaml."""
    image_size: int = 640
    """Image side in pixels."""
    batch_size: int = 16
    """Images in a batch of training data (statistics, BatchNorm)."""
    workers: int = 2
    """Processes that load images."""
    seed: int = 0
    """Seed of everything random."""
    prune: PruneSettings = field(default_factory=PruneSettings)
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class ValOptions:
    """Evaluate a checkpoint: P, R, mAP50, mAP50-95 overall and per class, speed."""

    weights: str = ""
    """Checkpoint."""
    data: str = ""
    """Data set: a data.yaml."""
    task: str = "val"
    """Split: train, val or test."""
    image_size: int = 640
    """Image side in pixels."""
    batch_size: int = 0
    """Images in a batch (0: sized for the cache on CPU, 32 on a GPU)."""
    conf: float = 0.001
    """Confidence threshold."""
    iou: float = 0.6
    """IoU threshold of NMS."""
    max_det: int = 300
    """Most detections an image."""
    precision: str = "fp32"
    """fp32, bf16 or fp16."""
    single_cls: bool = False
    """Treat all classes as one."""
    workers: int = 2
    """Processes that load images."""
    coco: bool = True
    """Print the twelve COCO AP/AR lines."""
    save_json: bool = False
    """Also write the detections as COCO JSON."""
    plots: bool = True
    """Draw PR curves and the confusion matrix."""
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class InfoOptions:
    """Summary of a checkpoint: layers, parameters, GFLOPs, sparsity, classes, history."""

    image_size: int = 640
    """Image side in pixels for GFLOPs."""
    layers: bool = False
    """Also print a table of all blocks."""
    json: bool = False
    """Print JSON alone."""


@dataclass(frozen=True)
class ExportOptions:
    """Write an ONNX file and check that it gives the detector's outputs."""

    weights: str = ""
    """Checkpoint."""
    image_size: int = 640
    """Image side in pixels."""
    batch_size: int = 1
    """Images in a batch."""
    dynamic: bool = False
    """Leave the batch size open."""
    simplify: bool = True
    """Simplify the graph with onnxslim."""
    opset: int = 17
    """ONNX opset."""
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class BenchOptions:
    """Measure checkpoints side by side on this machine: CPU latency at batch 1, interleaved, medians."""

    image_size: int = 640
    """Image side in pixels."""
    runtime: str = "onnx"
    """onnx (ONNX Runtime) or torch."""
    rounds: int = 30
    """Measurements of each model."""
    threads: int = 0
    """CPU threads (0: all)."""
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class RunOptions:
    """A recipe in one resumable run: by default dense evaluation, sparse training, cut, repair, fine-tuning, export."""

    data: str = ""
    """Data set: a data.yaml."""
    weights: str = ""
    """Trained checkpoint; with other classes than the data set's it is trained on the data first."""
    cfg: str = ""
    """Model YAML or name, for training from scratch without --weights."""
    recipe: str = "slimming"
    """Recipe: a name from `secateur recipes`, or a YAML file."""
    percent: float | None = None
    """Share of the prunable channels to remove."""
    params: str = ""
    """Parameters to keep: a share (0.5) or a number (2M). With several budgets all are met."""
    flops: str = ""
    """FLOPs to keep: a share (0.5) or a number (3.2G)."""
    criterion: str = ""
    """Importance of a channel (default: the recipe's)."""
    rate: float | None = None
    """Sparsity factor of the sparse training (default: the recipe's)."""
    round_to: int | None = None
    """Kept widths are multiples of this number (default: the recipe's)."""
    exclude: tuple[str, ...] = ()
    """Layers that keep all channels, as patterns of their names."""
    target_sparsity: float | None = None
    """Share of the weights to zero (default: the recipe's)."""
    pruning_pattern: str | None = None
    """Blocks in which weights are zeroed: 1x1, 4x1, NxM, 2:4, ... (default: the recipe's)."""
    pruning_frequency: int | None = None
    """Optimizer steps between two prunings of weights (default: the recipe's)."""
    cooldown_epochs: int | None = None
    """Last epochs of the weight pruning, in which the zeros stay where they are (default: the recipe's)."""
    distill: str = ""
    """Loss with which fine-tuning imitates the dense detector: l2, kl, bce, features, bce+features."""
    teacher: str = ""
    """Teacher of the distillation (default: the dense detector of the run)."""
    hyp: str = ""
    """Hyper-parameters of all training stages (default: the recipe's)."""
    epochs: int | None = None
    """Epochs of each training stage (default: the recipe's)."""
    dense_epochs: int | None = None
    """Epochs of the dense training; 0 leaves it out."""
    sparse_epochs: int | None = None
    """Epochs of the sparse training; 0 leaves it out."""
    finetune_epochs: int | None = None
    """Epochs of the fine-tuning; 0 leaves it out."""
    image_size: int = 640
    """Image side in pixels."""
    batch_size: int = 16
    """Images in a training batch."""
    optimizer: str = ""
    """SGD, Adam or AdamW (default: the recipe's)."""
    amp: str = "auto"
    """Mixed precision: auto, off, bf16 or fp16."""
    workers: int = 2
    """Processes that load images."""
    seed: int = 0
    """Seed of everything random."""
    place: Place = field(default_factory=Place)


@dataclass(frozen=True)
class DemoOptions:
    """Generate a data set, train a small detector on it and take it through the whole run: needs nothing else."""

    images: int = 240
    """Training images to draw."""
    image_size: int = 160
    """Image side in pixels."""
    seed: int = 0
    """Seed of everything random."""
    place: Place = field(default_factory=Place)
