"""`secateur prune` and `secateur heal`: steps of a recipe that take minutes, on one checkpoint, with a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from secateur.checkpoints.training import can_be_trained, contents
from secateur.data.config import unlabelled_images
from secateur.errors import UserError
from secateur.families.context import Context, known_data
from secateur.families.evaluation import usable_size
from secateur.families.evidence import OR_IMAGES
from secateur.families.family import family_of
from secateur.families.loading import load_checkpoint
from secateur.families.only_classes import left_out, only_classes
from secateur.families.reading import Split
from secateur.files import read_json
from secateur.machine import pick_device
from secateur.networks.checkpoint import NARROWED, Checkpoint
from secateur.pruning.depth import candidates
from secateur.pruning.plan import Plan
from secateur.pruning.rounds import STATE as ROUNDS_STATE
from secateur.report.page import PAGE, leave_page
from secateur.report.table import print_table
from secateur.runs.about import note_about
from secateur.runs.compare.difference import difference_line, first_to_last
from secateur.runs.folders import Summary
from secateur.runs.pipeline import check_steps, do_steps, one_process
from secateur.runs.progress import Progress, key_of
from secateur.runs.recipes.resolve import PlannedStep
from secateur.runs.rows import save_result
from secateur.steps.prune import Prune
from secateur.steps.remove_layers import RemoveLayers
from secateur.steps.step import Step
from secateur.steps.zero_weights import ZeroWeights

RESULTS = {"prune": "pruned", "heal": "healed"}
FIRST = {"prune": "dense", "heal": "before"}


def prune_checkpoint(
    verb: str, options: Any, steps_for: Callable[[Checkpoint], Sequence[Step]], *, otherwise: str = ""
) -> Summary:
    """Does steps on a checkpoint in a resumable folder; leaves pruned.safetensors or healed.safetensors and the table.

    Args:
        verb: the command.
        options: those of the command; without a data set nothing is evaluated.
        steps_for: the steps, in order; asked once the files of the options are known to be good.
        otherwise: what can be done instead of giving a data set of other classes, for the error.

    Raises:
        UserError: bad options or input, found before anything is written.
    """
    one_process(verb)
    weights = options.weights
    whole = start = load_checkpoint(weights)
    classes = getattr(options, "classes", ())
    if classes:
        start = only_classes(whole, classes)
    data = family_of(start).open_data(options.data) if options.data else None
    context = Context(
        usable_size(start, options.image_size),
        pick_device(options.device),
        None if data is None else known_data(start, data, weights, otherwise=otherwise),
        options.batch_size,
        options.workers,
        options.seed,
        unlabelled_images(options.images, start.names) if options.images else None,
    )
    steps = steps_for(start)
    planned = [PlannedStep(step, title=step.title) for step in steps]
    _check_blocks(steps, start, weights)
    given = {name: getattr(options, name) for name in ("weights", "data", "images", "batch_size", "seed", "device")}
    given |= {"image_size": context.image_size} | ({"classes": classes} if classes else {})
    key = key_of(given, _contents(steps, start, context), (weights, options.data), planned)
    check_steps(planned, start, context)
    with Progress.open(options.place.root(verb), options.place.name, key) as progress:
        here = dataclasses.replace(context, dense=start)
        budget = ", ".join(words for step in steps if (words := step.budget_words()))
        note_about(progress.folder, verb, options, start, here, planned, budget=budget)
        result = do_steps(planned, start, here, progress, splits=("val",), first=FIRST[verb])
        made, file = result.checkpoint, progress.folder / f"{RESULTS[verb]}.safetensors"
        noted = _noting_weights(made, weights) if verb == "prune" else made
        saved = save_result(noted, file, context.image_size)
        print_table(result.rows)
        difference = first_to_last(progress.folder, result.rows)
        if line := difference_line(difference):
            print(line)
        narrowed = left_out(whole, start, context.image_size) if classes else None
        if narrowed is not None:
            print(narrowed)
        _say_what_was_cut(progress.folder, steps)
        print("\n".join(saved))
        _say_what_is_next(file, made, context, steps)
        last = result.last
        summary: Summary = {"command": verb, "weights": str(file), "table": result.rows, "difference": difference}
        summary |= {} if narrowed is None else {"classes": narrowed.to_dict()}
        done = progress.finish(summary | {key: last[key] for key in ("metrics", "model", "speed_ms")})
        # What is left is the checkpoint that was asked for. Before the end a kill would have needed the others.
        for left in {*result.files.values(), file.with_name(ROUNDS_STATE)} - {file}:
            left.unlink(missing_ok=True)
        if leave_page(progress.folder):
            print(f"Report:        {progress.folder / PAGE}")
    return done


def _check_blocks(steps: Sequence[Step], start: Checkpoint, weights: str) -> None:
    for step in steps:
        if isinstance(step, RemoveLayers) and not candidates(start.build(), any_layer=step.layers.any_layer):
            raise UserError(f"{weights} has no bottlenecks that --layers could remove; give a channel budget instead.")


def _contents(steps: Sequence[Step], start: Checkpoint, context: Context) -> dict[str, str]:
    """What the results depend on of images and labels, in words, and a digest of each."""
    found: dict[str, Split] = {}
    family = family_of(start)
    # A cut asks what each channel does for the objects; zeroing and healing read no labels.
    labels = any(isinstance(step, Prune | RemoveLayers) for step in steps)
    for name in ("train", "val"):
        if context.data is not None and name in context.data.splits:
            objects = name == "val" or (labels and context.unlabelled is None)
            found[name] = family.split(context.data, name, tell=True, objects=objects, otherwise=OR_IMAGES)
    result = contents(found)
    if context.unlabelled is not None:
        result["the images"] = family.split(context.unlabelled, "train", tell=True).signature()
    return result


def _noting_weights(checkpoint: Checkpoint, weights: str) -> Checkpoint:
    """The checkpoint whose last cut, or choice of classes, names the file that it was made from."""
    history = list(checkpoint.history)
    place = max(place for place, entry in enumerate(history) if entry.verb in {"prune", NARROWED})
    settings = {**history[place].settings, "weights": str(Path(weights).absolute())}
    history[place] = dataclasses.replace(history[place], settings=settings)
    return dataclasses.replace(checkpoint, history=tuple(history))


def _say_what_was_cut(folder: Path, steps: Sequence[Step]) -> None:
    if any(isinstance(step, Prune) for step in steps):
        print(Plan.from_dict(read_json(folder / "plan.json")))


def _say_what_is_next(file: Path, made: Checkpoint, context: Context, steps: Sequence[Step]) -> None:
    """The command that goes on from here, as it can be pasted."""
    data = context.data.file if context.data is not None else "data.yaml"
    zeroed = bool(steps) and isinstance(steps[-1], ZeroWeights)
    if not zeroed and can_be_trained(made):
        print(f"Fine-tune it:  secateur finetune --weights {file} --data {data}")
    print(f"Export it:     secateur export --weights {file}")
