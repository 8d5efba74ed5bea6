"""Option types that several commands share, with YOLOv5's names as aliases and their help."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from secateur import sizes
from secateur.ranges import BATCH, PIXELS, SEED, WORKERS, Advanced

REMEMBERED = "(default: the size stored in the checkpoint, otherwise 640)"
Data = Annotated[str, arg(help="Data set: a data.yaml file, or a built-in name such as coco128.yaml.")]
UnlabelledImages = Annotated[
    str,
    arg(help="Unlabelled images to use instead of the training images: a folder, pattern, .txt list or data.yaml."),
]
Weights = Annotated[str, arg(help="Checkpoint: .safetensors, YOLOv5 .pt, or an official name such as yolov5n.pt.")]
Classes = Annotated[
    tuple[str, ...],
    arg(
        help=("Keep only these classes, by name or id (person car). The outputs for all other classes are removed."),
        metavar="WORD ...",
    ),
]
_IMG = ["--img", "--imgsz"]
# The command line joins two numbers to one word, 384x640, before options are parsed (flags.py).
ImageSize = Annotated[
    sizes.ImageSize,
    arg(
        aliases=_IMG,
        metavar="INT [INT]",
        help="Image side in pixels, or height and width: 640, or 384 640 (also 384x640).",
        help_behavior_hint=REMEMBERED,
    ),
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT [INT]",
        instance_from_str=lambda words: sizes.read_size(words[0]),
        is_instance=lambda value: isinstance(value, int | tuple),
        str_from_instance=lambda size: [sizes.in_words(size).replace(" ", "")],
    ),
    PIXELS,
]
ImageSide = Annotated[int, arg(aliases=_IMG, help="Image side in pixels.", help_behavior_hint=REMEMBERED), PIXELS]
"""For commands that support only square images."""
BatchSize = Annotated[int, arg(aliases=["--batch"]), BATCH]
Workers = Advanced[Annotated[int, arg(help="Processes that load images."), WORKERS]]
Seed = Advanced[Annotated[int, arg(help="Random seed."), SEED]]
Device = Annotated[str, arg(help="Device: auto (a GPU if available), cpu, 0 (a GPU number), cuda:1 or mps.")]
Hyp = Annotated[str, arg(help="Hyper-parameters: scratch-low, scratch-med, scratch-high, finetune, or a YAML file.")]
Cfg = Annotated[str, arg(help="Model YAML file or name (yolov5s, yolov3-tiny, ...), to train from scratch.")]
Resume = Annotated[
    str, arg(help="Resume an interrupted run: its folder, or no value for the newest run.", metavar="[FOLDER]")
]
