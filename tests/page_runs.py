"""Runs pages: the files that they take for granted, and their commands and snippets in order."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

import secateur
from law_subjects import enliven
from page_commands import BEFORE, NAMES, Line, Snippet, cells, pieces, shrunk
from secateur.cli import main
from secateur.data.synthetic import generate
from secateur.families.yolov5.model import Detector
from secateur.families.yolov5.topology import Topology
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from tiny_network import TINY

# Words of commands that `make test-slow` runs; other tests of `make test` run the same methods.
COSTLY = {"pareto", "run", "sweep", "demo"}
# Packages that `.[all,dev]` does not install.
WITHOUT = {"litert": "litert_torch", "executorch": "executorch"}
# Words of commands and snippets on networks of Ultralytics; tests/families/ultralytics runs them.
OF_ULTRALYTICS = ("ultralytics", "yolo11", "yolov8", "yolo26")


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
    (folder / "family.csv").write_text("label,ms,mAP50,mAP50_95\nyolov5n,4.1,0.457,0.28\n")
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


@dataclass
class Done:
    """Runs a command once and keeps what it wrote, for the other pages that have the same command."""

    store: Path
    known: dict[Any, Path] = field(default_factory=dict)

    def run(self, words: list[str]) -> None:
        """Writes what the command writes into the current folder.

        Raises:
            SystemExit: with what the command printed, where it failed.
        """
        # A run folder's name depends on those that are there; what a command reads has the same names on all pages.
        key = (*words, *sorted(str(path) for path in Path("runs").glob("*/*")))
        if key not in self.known:
            before = set(Path().rglob("*"))
            main(words)
            self.known[key] = self.store / str(len(self.known))
            for path in set(Path().rglob("*")) - before:
                if path.is_file():
                    copy = self.known[key] / path
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, copy)
        elif self.known[key].is_dir():
            shutil.copytree(self.known[key], Path(), dirs_exist_ok=True)


def run_page(page: Path, done: Done, *, costly: bool, ultralytics: bool = False) -> dict[str, Any]:
    """Runs the commands and the snippets of a page in the current folder.

    Args:
        costly: also run the commands with a word of COSTLY.
        ultralytics: also run what is on networks of Ultralytics.

    Returns:
        The names that its snippets define.
    """
    names: dict[str, Any] = {}
    for line in BEFORE.get(page.name, ()):
        done.run(shrunk(Line(line, in_block=False)))
    for piece in cells(page) if page.suffix == ".ipynb" else pieces(page.read_text()):
        if not ultralytics and any(word in page.name + piece.text for word in OF_ULTRALYTICS):
            continue
        if isinstance(piece, Snippet):
            exec(compile(piece.shrunk(), page.name, "exec"), names)
            continue
        assert piece.complete or not piece.in_block, f"{page.name} leaves something out: secateur {piece.text}"
        missing = any(word in piece.text and find_spec(package) is None for word, package in WITHOUT.items())
        if not piece.complete or missing or (COSTLY & {*piece.words} and not costly):
            continue
        words = shrunk(piece)
        try:
            done.run(words)
        except SystemExit as end:
            assert not end.code, f"{page.name}: secateur {piece.text}, run as {' '.join(words)}"
    return names
