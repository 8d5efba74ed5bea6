"""The command lines and Python snippets of the pages: how tests find them, shrink them and run them."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

import secateur
from law_subjects import enliven
from secateur.data.synthetic import generate
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.flags import understood
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from tiny_network import TINY

NAMES = {0: "person", 1: "car", 2: "bus"}
# A block of code with its language, or a command between backticks; a line of a table is one line.
PIECE = re.compile(r"^```(?P<language>\w*)\n(?P<block>.*?)^```$|`(?P<inline>[^`]+)`", re.M | re.S)
COMMAND = re.compile(r"(?:^|(?<=\s))secateur (?=[\w-])(.*)")
# Words that stand for what the reader fills in.
PLACEHOLDER = re.compile(r"^(?:[A-Z]+|.*\.\.\.)$")
# Commands that work on operands; the others need a checkpoint or a description of a network.
ON_OPERANDS = {"bench", "compare", "data", "info", "report"}
ALONE = {"demo", "recipes"}
SUBJECTS = {"--weights", "--cfg", "--resume"}

# What is smaller here than on a page: sizes, epochs and numbers of images; and budgets that so small a network has.
SMALLER = (
    (r"--(?:img|imgsz) \d+ \d+", "--img 32 64"),
    (r"--(?:img|imgsz) \d+\b(?! \d)", "--img 64"),
    (r"--((?:finetune-)?epochs|cooldown-epochs) \d+", r"--\1 1"),
    (r"--batch \d+", "--batch 8"),
    (r"--device \d+(?:,\d+)+", "--device cpu"),
    (r"--heal-steps \d+", "--heal-steps 2"),
    (r"--rounds \d+", "--rounds 2"),
    (r"--size 2MB", "--size 60KB"),
    (r"--ms \S+", "--ms 0.9"),
    (r"--flops \S+", "--flops 0.7"),
    (r"--percent [\d.]+(?= |$)", "--percent 0.2"),
    (r"--percent [\d.]+(?:,[\d.]+)+", "--percent 0.1,0.2"),
    (r"--budgets(?: [\d.]+)+", "--budgets 0.9 0.8"),
    (r"data generate (\S+) \d+ \d+", r"data generate \1 24 64"),
)
# What is added where a page leaves it to the default.
TRAINING = {"--epochs": "1", "--image-size": "64", "--batch-size": "8", "--workers": "0"}
CUTTING = {"--statistics-images": "8", "--correction-images": "8", "--rounds": "2"}
HEALING = {"--heal-steps": "2", "--heal-batch": "4"}
IMAGES = {"--image-size": "64", "--batch-size": "8", "--workers": "0"}
TIMES = {"--image-size": "64", "--rounds": "2", "--threads": "1"}
ADDED: dict[str, dict[str, str]] = {
    "train": TRAINING,
    "sparsify": TRAINING,
    "finetune": TRAINING,
    "prune": IMAGES | CUTTING,
    "heal": IMAGES | HEALING,
    "run": IMAGES | {"--epochs": "1", "--control": "off"},
    "sweep": IMAGES | {"--statistics-images": "8"},
    "pareto": IMAGES | CUTTING | HEALING,
    "val": IMAGES,
    "compare": IMAGES | TIMES | {"--resamples": "50"},
    "bench": TIMES,
    "latency": {"--image-size": "64", "--threads": "1"},
    "predict": {"--image-size": "64"},
    "export": {"--image-size": "64", "--calibration": "4"},
    "info": {"--image-size": "64"},
    "demo": {"--images": "32", "--image-size": "64"},
}
# The same of Python.
SMALLER_CODE = {
    "epochs=100": "epochs=1, workers=0",
    "heal=True": "heal=True, heal_steps=2, heal_batch=4, rounds='2', statistics_images=8, correction_images=8",
    "image_size=640": "image_size=64",
    "Context(640": "Context(64",
    "flops=0.5, round_to=16": "flops=0.9, round_to=2, rounds='2', statistics_images=8, correction_images=8",
    "(480, 640, 3)": "(48, 64, 3)",
}
# What a page takes for granted beyond a network and data: commands that its reader has run before.
CUT = "--weights best.pt --criterion l2 --params 0.5 --no-cliff"
BEFORE = {
    "comparing.md": [f"prune {CUT}", "val --weights best.pt --data data.yaml"],
    "report.md": [f"prune {CUT} --project runs/run", f"prune {CUT} --project runs/run"],
}


@dataclass(frozen=True)
class Line:
    """A command line of a page: the words behind `secateur`, and whether it stands in a block of code."""

    text: str
    in_block: bool

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    @property
    def complete(self) -> bool:
        """Whether it can be typed as it stands; a mention in a sentence leaves out what a command works on."""
        words = self.words
        if words[0] in ALONE:
            return True
        if any(PLACEHOLDER.match(word) for word in words):
            return False
        if words[0] in ON_OPERANDS:
            return len(words) > 1 and not words[1].startswith("-")
        return bool(SUBJECTS & set(words))


@dataclass(frozen=True)
class Snippet:
    """A block of Python of a page."""

    text: str


def pieces(text: str) -> Iterator[Line | Snippet]:
    """The commands and the Python blocks of a page, in the order in which they are read."""
    for piece in PIECE.finditer(text):
        if piece["language"] == "python":
            yield Snippet(piece["block"])
        elif piece["language"] in (None, "", "sh", "bash", "console", "text"):
            inline = piece["inline"] is not None
            lines = (piece["inline"] or piece["block"]).replace("\\\n", " ")
            for line in [" ".join(lines.split())] if inline else lines.splitlines():
                if match := COMMAND.search(line):
                    yield Line(match[1].strip(), not inline)


def cells(notebook: Path) -> Iterator[Line | Snippet]:
    """The code of a notebook in its order: lines after an exclamation mark are commands, other cells are Python."""
    for cell in json.loads(notebook.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code" and text.startswith("!"):
            yield from (Line(line.removeprefix("!secateur "), in_block=True) for line in text.splitlines())
        elif cell["cell_type"] == "code":
            yield Snippet(text)


def shrunk(line: Line) -> list[str]:
    """The words of a command with small settings."""
    text = " ".join(line.words)
    for pattern, smaller in SMALLER:
        text = re.sub(pattern, smaller, text)
    words = shlex.split(text)
    given = set(understood(words[0], words[1:]))
    added = ADDED.get(words[0], {})
    if words[0] == "prune" and "--heal" in given:
        added = added | HEALING
    if words[0] == "run" and "--recipe" not in given:
        added = added | {"--finetune-epochs": "1", "--rounds": "2", "--heal-steps": "2"}
    rest = [word for name, value in added.items() if name not in given for word in (name, value)]
    return [*words, *rest]


def prepared(folder: Path) -> Path:
    """A folder with the files that the pages take for granted: networks, a data set, images, a video.

    The networks are small and have random weights; the pruned ones have half the parameters.
    """
    data = generate(folder, images=(16, 8, 8), size=64, classes=3)
    written = {**yaml.safe_load(data.read_text()), "path": ".", "names": NAMES}
    for name in ("data.yaml", "coco.yaml", "coco128.yaml"):
        (folder / name).write_text(yaml.safe_dump(written))
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    torch.manual_seed(0)
    detector = Detector(Topology.from_yaml(folder / "tiny.yaml", nc=3), NAMES)
    enliven(detector)
    with torch.no_grad():  # boxes everywhere, so that there is something to prune for
        for last in detector.head.m:
            last.bias.view(detector.na, -1)[:, 4] += 3  # type: ignore[union-attr, operator]
    checkpoint = dataclasses.replace(Checkpoint.of(detector), image_size=64)
    for name in ("best", "last", "dense"):
        save_checkpoint(checkpoint, folder / f"{name}.safetensors")
    smaller = secateur.prune(checkpoint, criterion="l2", params=0.5, image_size=64)
    for name in ("pruned", "cut"):
        secateur.save(smaller, folder / f"{name}.safetensors")
    secateur.export(checkpoint, folder / "best.pt", format="yolov5", image_size=64)
    for name in ("yolov5n.pt", "yolov5s.pt"):
        shutil.copy(folder / "best.pt", folder / name)
    secateur.export(checkpoint, folder / "smaller.onnx", image_size=64)
    picture = cv2.imread(str(min((folder / "images" / "train").iterdir())))
    cv2.imwrite(str(folder / "image.jpg"), picture)
    annotate(folder, picture)
    (folder / "family.csv").write_text("label,ms,mAP,mAP50\nyolov5n,4.1,0.28,0.457\n")
    film = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 64))
    for _ in range(3):
        film.write(picture)
    film.release()
    return folder


def annotate(folder: Path, picture: NDArray[np.uint8]) -> None:
    """One image with one box, annotated as COCO and as Pascal VOC have it."""
    frame = {"id": 1, "file_name": "image.jpg", "width": 64, "height": 64}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": 0}
    cv2.imwrite(str(folder / "images" / "image.jpg"), picture)
    coco = {"images": [frame], "annotations": [box], "categories": [{"id": 1, "name": "person"}]}
    (folder / "annotations.json").write_text(json.dumps(coco))
    for name in ("Annotations", "JPEGImages"):
        (folder / "VOC2007" / name).mkdir(parents=True)
    cv2.imwrite(str(folder / "VOC2007" / "JPEGImages" / "image.jpg"), picture)
    (folder / "VOC2007" / "Annotations" / "image.xml").write_text(
        "<annotation><filename>image.jpg</filename><size><width>64</width><height>64</height><depth>3</depth></size>"
        "<object><name>person</name><bndbox><xmin>8</xmin><ymin>8</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object>"
        "</annotation>"
    )
