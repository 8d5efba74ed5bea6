"""The command lines and Python snippets of the pages: how tests find them, shrink them and run them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from secateur.flags import understood

NAMES = {0: "person", 1: "car", 2: "bus"}
# A block of code with its language, or a command between backticks; a line of a table is one line.
PIECE = re.compile(r"^```(?P<language>\w*)\n(?P<block>.*?)^```$|`(?P<inline>[^`]+)`", re.M | re.S)
# Up to the sign that sends its output to a file.
COMMAND = re.compile(r"(?:^|(?<=\s))secateur (?=[\w-])([^>\n]*)")
# Words that stand for what the reader fills in.
PLACEHOLDER = re.compile(r"^(?:[A-Z]+|.*\.\.\.)$")
# Commands that work on operands; the others need a checkpoint or a description of a network.
ON_OPERANDS = {"bench", "compare", "completion", "data", "info", "report"}
ON_DATA = {"train", "sparsify", "finetune", "val", "run", "sweep", "pareto"}
ALONE = {"demo", "recipes"}
SUBJECTS = {"--weights", "--cfg", "--resume"}

# What is smaller here than on a page: sizes, epochs and numbers of images; and budgets that so small a network has.
SMALLER = (
    (r"--(?:img|imgsz) \d+ \d+", "--img 32 64"),
    (r"--(?:img|imgsz) \d+\b(?! \d)", "--img 64"),
    (r"--epochs \d+", "--epochs 1"),
    (r"--cooldown-epochs \d+", "--cooldown-epochs 0"),
    (r"--batch \d+", "--batch 8"),
    (r"--device \d+(?:,\d+)+", "--device cpu"),
    (r"--size 2MB", "--size 0.9"),
    (r"--round-to 16", "--round-to 8"),
    (r"--cfg yolov5n", "--cfg tiny.yaml"),
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
    "shorten(checkpoint, 2": "shorten(checkpoint, 1",
    '"runs/tuned", teacher': '"runs/tuned", epochs=1, workers=0, teacher',
    "flops=0.5, round_to=16": "flops=0.9, round_to=2, rounds='2', statistics_images=8, correction_images=8",
    "(480, 640, 3)": "(48, 64, 3)",
    "torch.rand(8, 3, 64, 64)": "torch.rand(8, 3, 32, 32)",
    "statistics_images=16, correction_images=16)": "statistics_images=16, correction_images=16, rounds='1')",
}
# What a page takes for granted beyond a network and data: commands that its reader has run before.
CUT = "--weights best.pt --criterion l2 --params 0.5 --no-cliff"
BEFORE = {
    "comparing.md": [f"prune {CUT}", "val --weights best.pt --data data.yaml"],
    "report.md": [f"prune {CUT} --project runs/run", f"prune {CUT} --project runs/run"],
}


@dataclass(frozen=True)
class Line:
    """A command line of a page: the words after `secateur`, and whether it is in a code block."""

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
        has_data = words[0] not in ON_DATA or bool({"--data", "--resume"} & {*words})
        return has_data and bool(SUBJECTS & {*words})


@dataclass(frozen=True)
class Snippet:
    """A block of Python of a page."""

    text: str

    def shrunk(self) -> str:
        """The code with small settings."""
        code = self.text
        for there, here in SMALLER_CODE.items():
            code = code.replace(there, here)
        return code


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
    added = ADDED.get(words[0], {}) if "--resume" not in given else {}
    if words[0] == "prune" and "--heal" in given:
        added = added | HEALING
    if words[0] == "run" and "--recipe" not in given:
        added = added | {"--finetune-epochs": "1", "--rounds": "2", "--heal-steps": "2"}
    rest = [word for name, value in added.items() if name not in given for word in (name, value)]
    return [*words, *rest]
