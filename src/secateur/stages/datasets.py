"""The `secateur data` commands: check a data set, convert one from COCO or VOC, generate one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from secateur.data.config import load_data_config
from secateur.data.convert import coco_to_yolo, voc_to_yolo
from secateur.data.index import scan
from secateur.data.synthetic import generate
from secateur.errors import UserError

USAGE = """usage: secateur data check DATA.YAML
       secateur data convert coco ANNOTATIONS.JSON IMAGES OUT
       secateur data convert voc FOLDER OUT
       secateur data generate OUT [IMAGES [SIZE]]"""


def data_command(arguments: Sequence[str]) -> None:
    """Calls the data command that the words name.

    Raises:
        UserError: unknown or incomplete words.
    """
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(USAGE)
        return
    match list(arguments):
        case ["check", file]:
            check(Path(file))
        case ["convert", "coco", annotations, images, out]:
            print(f"Written: {coco_to_yolo(Path(annotations), Path(out), images=Path(images))}")
        case ["convert", "voc", folder, out]:
            print(f"Written: {voc_to_yolo(Path(folder), Path(out))}")
        case ["generate", out, *numbers] if len(numbers) <= 2 and all(number.isdigit() for number in numbers):
            count, size = [*(int(number) for number in numbers), *(200, 320)[len(numbers) :]]
            held_out = max(count // 4, 1)
            print(f"Written: {generate(Path(out), images=(count, held_out, held_out), size=size)}")
        case _:
            raise UserError(f"Cannot read 'secateur data {' '.join(arguments)}'; see secateur data --help.")


def check(file: Path) -> None:
    """Checks every image and label of every split and prints what was found."""
    data = load_data_config(file)
    for split in data.splits:
        index = scan(data, split)
        print(f"{split}: {index.counts}")
        for problem in index.problems:
            print(f"  {problem}")
