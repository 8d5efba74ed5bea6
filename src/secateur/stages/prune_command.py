"""The command that makes a detector smaller: bottlenecks go, channels go, or single weights are zeroed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from secateur.data.config import DataConfig, load_data_config
from secateur.detector.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from secateur.errors import UserError
from secateur.files import write_json, write_text
from secateur.sparsity.one_shot import zero_weights
from secateur.stages.depth import remove_layers
from secateur.stages.evaluation import check_classes, describe, evaluate, usable_size, val_settings
from secateur.stages.ledger import Ledger, fingerprint
from secateur.stages.options import PruneOptions
from secateur.stages.places import Summary, finish, removed_on_failure, require, root_of
from secateur.stages.pruning import (
    Work,
    budgets_of,
    check_settings,
    cut_channels,
    decide,
    repair,
    save_decision,
)
from secateur.stages.searching import STATE as SEARCH_FILE
from secateur.stages.table import print_table
from secateur.stages.training import processes


def prune(options: PruneOptions) -> Summary:
    """`secateur prune`: decide, show the cliff, cut, repair, evaluate."""
    if processes()[1] > 1:
        raise UserError("secateur prune works in one process; start it without torchrun.")
    weights = require(options.weights, "--weights", "best.pt")
    data = load_data_config(require(options.data, "--data", "data.yaml"))
    checkpoint = load_checkpoint(weights)
    check_classes(checkpoint, data, weights)
    check_settings(options.prune)
    options = dataclasses.replace(options, image_size=usable_size(checkpoint, options.image_size))
    settings = {k: v for k, v in dataclasses.asdict(options).items() if k not in {"place", "workers"}}
    files = tuple(Path(name) for name in (weights, options.data) if Path(name).is_file())
    # A search that was killed goes on in the folder in which it was.
    ledger = Ledger.open(root_of(options.place, "prune"), options.place.name, fingerprint(settings, files))
    folder = ledger.folder
    models: list[tuple[str, Checkpoint]] = [("dense", checkpoint)]
    # A budget out of reach leaves nothing behind.
    with removed_on_failure(folder, unless=SEARCH_FILE):
        if options.prune.unstructured:
            models.append(("weights zeroed", zeroed(checkpoint, options, folder)))
        else:
            models += smaller(checkpoint, options, data, folder)
        if len(models) == 1:
            raise UserError(f"{weights} has no bottlenecks that --layers could remove; give a channel budget instead.")
        result = noting_weights(models[-1][1], weights)
        save_checkpoint(result, folder / "pruned.safetensors")
    rows = [row(title, model, data, options, Path(weights)) for title, model in models]
    rows[-1]["model"]["file_mb"] = (folder / "pruned.safetensors").stat().st_size / 1e6
    print_table(rows)
    ledger.finish()
    print(f"Saved to {folder / 'pruned.safetensors'}; fine-tune it with: secateur finetune --weights ... --data ...")
    last = rows[-1]
    summary = {"command": "prune", "weights": str(folder / "pruned.safetensors"), "table": rows}
    return finish(folder, summary | {key: last[key] for key in ("metrics", "model", "speed_ms")})


def zeroed(checkpoint: Checkpoint, options: PruneOptions, folder: Path) -> Checkpoint:
    """The checkpoint with its smallest weights at zero, and the report of its zeros."""
    result, report = zero_weights(checkpoint, options.prune)
    print(report.table())
    write_text(folder / "sparsity.txt", report.table() + "\n")
    write_json(folder / "sparsity.json", report.to_dict())
    return result


def smaller(
    checkpoint: Checkpoint, options: PruneOptions, data: DataConfig, folder: Path
) -> list[tuple[str, Checkpoint]]:
    """What each step of the cut gives, with its title."""
    work = Work(data, options.image_size, options.batch_size, options.workers, options.seed)
    models = []
    if options.prune.layers:
        checkpoint, removed = remove_layers(checkpoint, work, options.prune)
        what = "layer" if len(removed) == 1 else "layers"
        if removed:
            models.append((f"{len(removed)} {what} removed", checkpoint))
    if budgets_of(options.prune):
        decision, curve = decide(checkpoint, work, options.prune, folder)
        save_decision(folder, decision, curve)
        print(decision.plan.table())
        models.append(("cut, no repair", cut_channels(checkpoint, decision)))
        models.append(("cut + repair", repair(checkpoint, decision, work, options.prune)))
    return models


def noting_weights(checkpoint: Checkpoint, weights: str) -> Checkpoint:
    """The checkpoint whose last stage names the file that it was made from: a distillation finds its teacher there."""
    *earlier, last = checkpoint.history
    last = dataclasses.replace(last, settings={**last.settings, "weights": str(Path(weights).absolute())})
    return dataclasses.replace(checkpoint, history=(*earlier, last))


def row(title: str, model: Checkpoint, data: DataConfig, options: PruneOptions, dense: Path) -> dict[str, Any]:
    """One row of the table."""
    metrics = evaluate(model, data, "val", val_settings(options.image_size, options.workers))
    file = dense if title == "dense" and dense.is_file() else None
    return {
        "stage": title,
        "metrics": metrics.to_dict(),
        "model": describe(model, options.image_size, file),
        "speed_ms": metrics.speed_ms,
    }
