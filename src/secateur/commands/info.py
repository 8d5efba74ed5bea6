"""`secateur info`: summarises a checkpoint."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from secateur import sizes
from secateur.commands import Summary, command
from secateur.errors import told
from secateur.runs.fields import ImageSize


@dataclass(frozen=True)
class InfoOptions:
    """Summarise a checkpoint: layers, parameters, GFLOPs, sparsity, classes, history."""

    file: Positional[str]
    """Checkpoint to summarise."""
    image_size: ImageSize = 0
    layers: bool = False
    """Also print a table of all blocks."""
    json: bool = False
    """Print only JSON."""


@command("info", "summarise a checkpoint: layers, parameters, GFLOPs, sparsity, history", lambda: InfoOptions,
         order=90, computes=False, json=lambda options: options.json)  # fmt: skip
def info(options: InfoOptions) -> Summary:
    """Prints the summary and writes no files."""
    from secateur.evaluation.cost import layer_flops
    from secateur.families.evaluation import describe, size_of, usable_size
    from secateur.families.loading import load_checkpoint
    from secateur.families.summary import summary
    from secateur.networks.tensors import flaw_of

    checkpoint = load_checkpoint(options.file, sound=False)
    image_size = sizes.square_as_one(usable_size(checkpoint, options.image_size))
    model = describe(checkpoint, image_size)
    described = summary(checkpoint, image_size, layer_flops(checkpoint.build(), image_size))
    size = size_of(Path(options.file))
    print(checkpoint)
    print(described.line() + (f", {size:.2f} MB" if size is not None else ""))
    flaw = flaw_of(checkpoint.tensors)
    if flaw:
        print(f"warning: the weights contain {told(flaw)}; the network cannot compute valid outputs")
    if options.layers:
        print(described.table())
    for entry in checkpoint.history:
        print(f"history: {entry.verb}{_figures(entry.metrics)}{_figures(entry.cost)}")
    return {
        "command": "info",
        "file": options.file,
        "names": {str(index): name for index, name in checkpoint.names.items()},
        "strides": list(checkpoint.strides),
        "flaw": flaw or None,
        "model": {**described.to_dict(), **model},
        "history": [dataclasses.asdict(entry) for entry in checkpoint.history],
    }


def _figures(values: Summary) -> str:
    """Numeric values as text: ", parameters 1,767,976, flops 1.03e+09"."""
    shown = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return "".join(f", {name} {value:,.4g}" if isinstance(value, float) else f", {name} {value:,}"
                   for name, value in shown.items())  # fmt: skip
