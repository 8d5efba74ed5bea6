"""`secateur prune` and `secateur heal`: steps of a recipe that take minutes, on one checkpoint, with a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.compression.rounds import STATE as ROUNDS_STATE
from secateur.compression.search import STATE as SEARCH_STATE
from secateur.compression.training import can_be_trained
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.evidence import OR_IMAGES
from secateur.families.family import family_of
from secateur.files import read_json
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.depth import candidates
from secateur.pruning.plan import Plan
from secateur.report.table import print_table
from secateur.runs.folders import Place, Summary, finish, removed_on_failure
from secateur.runs.pipeline import check_steps, do_steps, log_file, one_process
from secateur.runs.progress import Progress, digest, file_digest
from secateur.runs.recipes.resolve import PlannedStep, plain
from secateur.steps.prune import Prune
from secateur.steps.remove_layers import RemoveLayers
from secateur.steps.step import Step
from secateur.steps.zero_weights import ZeroWeights

RESULTS = {"prune": "pruned", "heal": "healed"}
FIRST = {"prune": "dense", "heal": "before"}


def prune_checkpoint(
    steps: Sequence[Step], weights: str, start: Checkpoint, context: Context, place: Place, *, verb: str = "prune"
) -> Summary:
    """Does the steps on a checkpoint in a resumable folder; leaves pruned.safetensors and the table.

    Args:
        steps: in order.
        weights: the file of `start`, noted in the history so that a distillation finds its teacher.
        context: without a data set nothing is evaluated.
        verb: the command.

    Raises:
        UserError: bad options or input, found before anything is written.
    """
    one_process(verb)
    planned = [PlannedStep(step, title=step.title) for step in steps]
    _check_blocks(steps, start, weights)
    key = _key(planned, weights, start, context)
    check_steps(planned, start, context)
    with Progress.open(place.root(verb), place.name, key) as progress:
        folder = progress.folder
        # A budget out of reach leaves nothing behind; a search that was killed goes on in the folder in which it was.
        with removed_on_failure(folder, SEARCH_STATE, ROUNDS_STATE), log_file(folder):
            here, first = dataclasses.replace(context, dense=start), FIRST[verb]
            result = do_steps(planned, start, here, progress, splits=("val",), first=first)
            file = folder / f"{RESULTS[verb]}.safetensors"
            made = result.checkpoint
            save_checkpoint(_noting_weights(made, weights) if verb == "prune" else made, file)
        _leave_only_the_result(file, result.parts)
        print_table(result.rows)
        _say_what_was_cut(folder, steps)
        _say_what_is_next(file, made, context, steps)
        last = result.last
        summary = {"command": verb, "weights": str(file), "table": result.rows}
        done = finish(folder, summary | {key: last[key] for key in ("metrics", "model", "speed_ms")})
        progress.finish()
    return done


def _check_blocks(steps: Sequence[Step], start: Checkpoint, weights: str) -> None:
    for step in steps:
        if isinstance(step, RemoveLayers) and not candidates(start.build(), any_layer=step.layers.any_layer):
            raise UserError(f"{weights} has no bottlenecks that --layers could remove; give a channel budget instead.")


def _key(steps: Sequence[PlannedStep], weights: str, start: Checkpoint, context: Context) -> dict[str, str]:
    """All that the results depend on, by name."""
    key = {
        "--weights": f"{weights} {file_digest(Path(weights))}",
        "--image-size": str(context.image_size),
        "--batch-size": str(context.batch_size),
        "--seed": str(context.seed),
        "--device": str(context.device),
        "the settings of the cut": digest([plain(planned) for planned in steps]),
    }
    files = dict.fromkeys(file for planned in steps for file in planned.step.files())
    key |= {f"the file {file}": file_digest(Path(file)) for file in files}
    # A cut asks what each channel does for the objects; zeroing and healing read no labels.
    labels = any(isinstance(planned.step, Prune | RemoveLayers) for planned in steps)
    family = family_of(start)
    for name in ("train", "val") if context.data is not None else ():
        assert context.data is not None
        if name in context.data.splits:
            objects = name == "val" or (labels and context.images is None)
            split = family.split(context.data, name, tell=True, objects=objects, otherwise=OR_IMAGES)
            key[f"the {name} images or labels"] = split.signature()
    if context.data is not None:
        key["the class names"] = digest(sorted(context.data.names.items()))
    if context.images is not None:
        key["the pictures"] = family.split(context.images, "train", tell=True).signature()
    return key


def _noting_weights(checkpoint: Checkpoint, weights: str) -> Checkpoint:
    """The checkpoint whose last cut names the file that it was made from."""
    history = list(checkpoint.history)
    place = max(place for place, stage in enumerate(history) if stage.verb == "prune")
    settings = {**history[place].settings, "weights": str(Path(weights).absolute())}
    history[place] = dataclasses.replace(history[place], settings=settings)
    return dataclasses.replace(checkpoint, history=tuple(history))


def _leave_only_the_result(file: Path, parts: Mapping[str, Any]) -> None:
    """Takes the checkpoints between the steps away: what is left is the one that was asked for."""
    for name in parts:
        if name != file.stem:
            file.with_name(f"{name}.safetensors").unlink(missing_ok=True)
    file.with_name(ROUNDS_STATE).unlink(missing_ok=True)


def _say_what_was_cut(folder: Path, steps: Sequence[Step]) -> None:
    if any(isinstance(step, Prune) for step in steps):
        print(Plan.from_dict(read_json(folder / "plan.json")))


def _say_what_is_next(file: Path, made: Checkpoint, context: Context, steps: Sequence[Step]) -> None:
    """The command that goes on from here, as it can be pasted."""
    print(f"Saved to {file}")
    data = context.data.file if context.data is not None else "data.yaml"
    if not isinstance(steps[-1], ZeroWeights) and can_be_trained(made):
        print(f"Fine-tune it:  secateur finetune --weights {file} --data {data}")
    print(f"Export it:     secateur export --weights {file}")
