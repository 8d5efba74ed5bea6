"""The demo: draws a data set, trains a small detector on it from scratch and takes it through the whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateur.data.synthetic import generate
from secateur.errors import UserError
from secateur.files import read_json, write_json
from secateur.stages.options import DemoOptions, RunOptions
from secateur.stages.run import run_pipeline


def demo_run(options: DemoOptions, root: Path) -> dict[str, Any]:
    """Generates the images once (a killed demo goes on with them), then runs the recipe `demo` from scratch.

    Raises:
        UserError: fewer than 32 images, or a folder that cannot be written.
    """
    if options.images < 32:
        raise UserError(f"--images {options.images} is too few to train on; take at least 32.")
    folder = root / f"data-{options.images}-{options.image_size}-{options.seed}"
    marker = folder / "complete.json"
    if not marker.is_file():
        print(f"Drawing {options.images} training images into {folder} ...")
        held_out = max(options.images // 4, 16)
        data = generate(folder, images=(options.images, held_out, held_out), size=options.image_size, seed=options.seed)
        write_json(marker, {"data": data.name})
    data = folder / read_json(marker)["data"]
    return run_pipeline(
        RunOptions(
            data=str(data),
            cfg="yolov5n",
            recipe="demo",
            image_size=options.image_size,
            seed=options.seed,
            place=options.place,
        ),
        root,
    )
