"""Types of options that several commands share, with YOLOv5's names for them and their help."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from secateur import sizes
from secateur.ranges import BATCH, PIXELS, SEED, WORKERS, Advanced

REMEMBERED = "(default: the size that the checkpoint remembers, else 640)"
Data = Annotated[str, arg(help="Data set: a data.yaml, or coco128.yaml and the like by name.")]
UnlabelledImages = Annotated[
    str,
    arg(help="Images without labels, instead of the training images: a folder, pattern, .txt list or data.yaml."),
]
Weights = Annotated[str, arg(help="Checkpoint: .safetensors, YOLOv5 .pt, or an official name such as yolov5n.pt.")]
Classes = Annotated[
    tuple[str, ...],
    arg(help="Keep only these classes, by name or id: person car. The outputs for others go.", metavar="WORD ..."),
]
_IMG = ["--img", "--imgsz"]
# Of two numbers the command line makes one word, 384x640, before options are read (words.py).
ImageSize = Annotated[
    sizes.ImageSize,
    arg(
        aliases=_IMG,
        metavar="INT [INT]",
        help="Image side in pixels, or height and width of every image: 640, or 384 640 (also 384x640).",
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
"""Of commands that take squares alone."""
BatchSize = Annotated[int, arg(aliases=["--batch"]), BATCH]
Workers = Advanced[Annotated[int, arg(help="Processes that load images."), WORKERS]]
Seed = Advanced[Annotated[int, arg(help="Seed of everything random."), SEED]]
Device = Annotated[
    str, arg(help="Where to compute: auto (a GPU where there is one), cpu, 0 (a GPU by its number), cuda:1 or mps.")
]
Hyp = Annotated[str, arg(help="Hyper-parameters: scratch-low, scratch-med, scratch-high, finetune, or a YAML file.")]
Cfg = Annotated[str, arg(help="Model YAML or name (yolov5s, yolov3-tiny, ...), for training from scratch.")]
Resume = Annotated[
    str, arg(help="Continue an interrupted run: its folder, or nothing for the newest.", metavar="[FOLDER]")
]
