"""`secateur data`: checks a data set, converts COCO or VOC annotations, or generates a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitSubcommandPrefixes, Positional, subcommand

from secateur.commands import command
from secateur.ranges import Between


@dataclass(frozen=True)
class Check:
    """Check every image and label of every split and report problems."""

    file: Positional[str]
    """Path of data.yaml."""


@dataclass(frozen=True)
class Coco:
    """Convert COCO annotations to YOLO labels."""

    annotations: Positional[Path]
    """COCO annotation file, for example instances_val2017.json."""
    images: Positional[Path]
    """Folder with the images."""
    out: Positional[Path]
    """Folder for the new data set."""


@dataclass(frozen=True)
class Voc:
    """Convert a folder of Pascal VOC annotations to YOLO labels."""

    folder: Positional[Path]
    """Folder that contains Annotations and JPEGImages."""
    out: Positional[Path]
    """Folder for the new data set."""


@dataclass(frozen=True)
class Convert:
    """Convert a data set to YOLO format."""

    source: OmitSubcommandPrefixes[Annotated[Coco, subcommand("coco")] | Annotated[Voc, subcommand("voc")]]


@dataclass(frozen=True)
class Generate:
    """Generate a data set of drawn shapes."""

    out: Positional[Path]
    """Folder for the new data set."""
    images: Positional[Annotated[int, Between(1, 1_000_000)]] = 200
    """Number of training images. A quarter as many are drawn for val and for test."""
    size: Positional[Annotated[int, Between(64, 4096)]] = 320
    """Image height and width in pixels."""


@dataclass(frozen=True)
class DataOptions:
    """Check, convert or generate data sets."""

    action: OmitSubcommandPrefixes[
        Annotated[Check, subcommand("check")]
        | Annotated[Convert, subcommand("convert")]
        | Annotated[Generate, subcommand("generate")]
    ]


@command("data", "check, convert (coco, voc) or generate data sets", lambda: DataOptions, order=130, computes=False,
         json=lambda options: False)  # fmt: skip
def data(options: DataOptions) -> None:
    """Runs the selected subcommand."""
    work(options.action)


def work(action: Any) -> None:
    """Runs one subcommand."""
    from secateur.data.convert import coco_to_yolo, voc_to_yolo
    from secateur.data.synthetic import generate

    match action:
        case Check(file):
            check(file)
        case Convert(Coco(annotations, images, out)):
            print(f"Written: {coco_to_yolo(annotations, out, images=images)}")
        case Convert(Voc(folder, out)):
            print(f"Written: {voc_to_yolo(folder, out)}")
        case Generate(out, count, size):
            held_out = max(count // 4, 1)
            print(f"Written: {generate(out, images=(count, held_out, held_out), size=size)}")


def check(file: str) -> None:
    """Checks every image and label of every split and prints tables, then each problem once."""
    from secateur.data.config import load_data_config
    from secateur.data.index import few_objects, scan, without_objects
    from secateur.report.data_table import print_data

    config = load_data_config(file)
    indices = {split: scan(config, split, tell=False, processes=True) for split in config.splits}
    print_data(indices, config.names)
    for split, index in indices.items():
        nothing = without_objects(index, split, config)
        warning = f"Warning: {nothing}." if nothing else few_objects(index)
        for remark in (*([warning] if warning else []), *index.remarks, *index.problems):
            print(f"{split}: {remark}")
