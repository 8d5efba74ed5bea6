"""`secateur demo`: generates a data set, trains a small detector from scratch and prunes it with the recipe `demo`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from secateur.commands import Summary, command
from secateur.ranges import Between
from secateur.runs.fields import Device, Seed
from secateur.runs.folders import OutputOptions
from secateur.runs.options import RunOptions


@dataclass(frozen=True)
class DemoOptions:
    """Generate a data set, train a small detector and take it through a complete run. Needs no input files."""

    images: Annotated[int, Between(32, 1_000_000)] = 240
    """Number of training images to generate."""
    image_size: Annotated[int, Between(64, 4096)] = 128
    """Image height and width in pixels."""
    seed: Seed = 0
    device: Device = "auto"
    place: OutputOptions = field(default_factory=OutputOptions)


@command("demo", "generate a data set and take a small detector through a complete run; needs no input files",
         lambda: DemoOptions, order=10, continues=True)  # fmt: skip
def demo(options: DemoOptions) -> Summary:
    """Generates the images if they do not exist yet, so that an interrupted demo can resume, then runs the recipe
    `demo`.

    Raises:
        UserError: the folder cannot be written.
    """
    from pathlib import Path

    from secateur.data.synthetic import generate
    from secateur.files import read_json, write_json
    from secateur.report.page import PAGE
    from secateur.runs.run import run_recipe

    root = options.place.root("demo")
    folder = root / f"data-{options.images}-{options.image_size}-{options.seed}"
    marker = folder / "complete.json"
    if not marker.is_file():
        print(f"Drawing {options.images} training images into {folder} ...")
        held_out = max(options.images // 4, 16)
        drawn = generate(
            folder, images=(options.images, held_out, held_out), size=options.image_size, seed=options.seed
        )
        write_json(marker, {"data": drawn.name})
    chosen = RunOptions(
        data=str(folder / read_json(marker)["data"]),
        cfg="yolov5n",
        recipe="demo",
        image_size=options.image_size,
        seed=options.seed,
        device=options.device,
        control=False,
        place=options.place,
    )
    summary = run_recipe(chosen, root)
    page = Path(summary["folder"]) / PAGE
    if page.is_file():
        print(f"Open it in a browser: {page}")
    return summary
