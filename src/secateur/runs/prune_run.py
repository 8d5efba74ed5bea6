"""`secateur prune` and `secateur heal`: recipe steps that take minutes, applied to one checkpoint, with a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.checkpoints.training import contents
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
from secateur.pruning.costs import COSTS
from secateur.pruning.depth import candidates
from secateur.pruning.plan import Plan
from secateur.pruning.rounds import STATE as ROUNDS_STATE
from secateur.report.page import PAGE, leave_page
from secateur.report.table import print_table
from secateur.runs.about import note_about
from secateur.runs.compare.difference import difference_line, first_to_last
from secateur.runs.ending.change import say_change
from secateur.runs.ending.next_line import after_cut, looked_at, pasted, prediction, say
from secateur.runs.folders import Summary
from secateur.runs.pipeline import PipelineResult, check_steps, do_steps, one_process
from secateur.runs.progress import Progress, key_of
from secateur.runs.recipes.resolve import PlannedStep
from secateur.runs.rows import save_result
from secateur.steps.prune import Prune
from secateur.steps.remove_layers import RemoveLayers
from secateur.steps.step import Step
from secateur.steps.zero_weights import ZeroWeights
from secateur.training.distributed import rank_and_world

RESULTS = {"prune": "pruned", "heal": "healed"}
FIRST = {"prune": "dense", "heal": "before"}


def prune_checkpoint(
    verb: str, options: Any, steps_for: Callable[[Checkpoint], Sequence[Step]], *, otherwise: str = ""
) -> Summary:
    """Applies steps to a checkpoint in a resumable folder. Writes pruned.safetensors or healed.safetensors and the
    table.

    Under torchrun, the first process cuts, saves and evaluates; all processes heal together.

    Args:
        verb: the command.
        options: options of the command; without a data set nothing is evaluated.
        steps_for: returns the steps in order; called after the files named by the options have been checked.
        otherwise: alternative to a data set with other classes, for the error message.

    Raises:
        UserError: options or input are invalid; checked before anything is written.
    """
    if verb == "prune" and not options.heal:
        one_process(verb)
    weights = options.weights
    whole, start, context = opened(options, otherwise)
    classes = getattr(options, "classes", ())
    steps = steps_for(start)
    planned = [PlannedStep(step, title=step.title) for step in steps]
    _check_blocks(steps, start, weights)
    given = {name: getattr(options, name) for name in ("weights", "data", "images", "batch_size", "seed", "device")}
    given |= {"image_size": context.image_size} | ({"classes": classes} if classes else {})
    key = key_of(given, _contents(steps, start, context), (weights, options.data), planned)
    check_steps(planned, start, context)
    with Progress.open(options.place.root(verb), options.place.name, key, options.device) as progress:
        here = dataclasses.replace(context, dense=start)
        budget = ", ".join(words for step in steps if (words := step.budget_words()))
        note_about(progress.folder, verb, options, start, here, planned, budget=budget)
        result = do_steps(planned, start, here, progress, splits=("val",), first=FIRST[verb])
        if rank_and_world()[0] != 0:
            return {}
        return _closing(PruneTask(verb, options, whole, here, tuple(steps)), result, progress)


@dataclass(frozen=True)
class PruneTask:
    """The request of one call of `prune_checkpoint`.

    Attributes:
        verb: the command.
        options: options of the command.
        whole: the given checkpoint with all of its classes.
        context: its `dense` is the checkpoint from which the steps start.
        steps: in order.
    """

    verb: str
    options: Any
    whole: Checkpoint
    context: Context
    steps: tuple[Step, ...]


def _closing(task: PruneTask, result: PipelineResult, progress: Progress) -> Summary:
    """Saves the final checkpoint, prints the table and the changes, and writes the summary and the report page."""
    verb, options, folder = task.verb, task.options, progress.folder
    made, file = result.checkpoint, folder / f"{RESULTS[verb]}.safetensors"
    saved = save_result(
        noting_weights(made, options.weights) if verb == "prune" else made, file, task.context.image_size
    )
    print_table(result.rows)
    difference = first_to_last(folder, result.rows)
    if line := difference_line(difference):
        print(line)
    summary: Summary = {"command": verb, "weights": str(file), "table": result.rows, "difference": difference}
    if getattr(options, "classes", ()):
        assert task.context.dense is not None
        narrowed = left_out(task.whole, task.context.dense, task.context.image_size)
        print(narrowed)
        summary["classes"] = narrowed.to_dict()
    _say_what_was_cut(folder, task.steps)
    print("\n".join(saved))
    if verb == "prune":
        healed = "healed" if options.heal else "pruned"
        summary |= say_change(progress, result.rows, task.context, made, file, healed)
    if "heal" in result.notes:
        summary["healing"] = result.notes["heal"]
    sized = result.notes.get("plan", {}).get("file_mb")
    summary |= {} if sized is None else {"file_mb": sized}
    done = progress.finish(summary | {key: result.last[key] for key in ("metrics", "model", "speed_ms")})
    # Remove the intermediate checkpoints, which only an interrupted run needs, and keep the result.
    for left in {*result.files.values(), file.with_name(ROUNDS_STATE)} - {file}:
        left.unlink(missing_ok=True)
    if leave_page(folder):
        print(f"Report:        {folder / PAGE}")
    say(_next_line(verb, file, made, options, task.context, task.steps))
    return done


def opened(options: Any, otherwise: str = "") -> tuple[Checkpoint, Checkpoint, Context]:
    """The checkpoint of a command, the same narrowed to the requested classes, and the context.

    Args:
        options: options of the command.
        otherwise: alternative to a data set with other classes, for the error message.

    Raises:
        UserError: a file or a value is invalid.
    """
    whole = start = load_checkpoint(options.weights)
    classes = getattr(options, "classes", ())
    if classes:
        start = only_classes(whole, classes)
    data = family_of(start).open_data(options.data) if options.data else None
    context = Context(
        usable_size(start, options.image_size),
        pick_device(options.device),
        None if data is None else known_data(start, data, options.weights, otherwise=otherwise),
        options.batch_size,
        options.workers,
        options.seed,
        unlabelled_images(options.images, start.names) if options.images else None,
    )
    return whole, start, context


def _check_blocks(steps: Sequence[Step], start: Checkpoint, weights: str) -> None:
    for step in steps:
        if isinstance(step, RemoveLayers) and not candidates(start.build(), any_layer=step.layers.any_layer):
            raise UserError(f"{weights} has no bottlenecks that --layers could remove. Give a channel budget instead.")


def _contents(steps: Sequence[Step], start: Checkpoint, context: Context) -> dict[str, str]:
    """Digests of the images and labels that the results depend on, by a description."""
    found: dict[str, Split] = {}
    family = family_of(start)
    # A cut measures the effect of each channel on the objects; zeroing and healing read no labels.
    labels = any(isinstance(step, Prune | RemoveLayers) for step in steps)
    for name in ("train", "val"):
        if context.data is not None and name in context.data.splits:
            objects = name == "val" or (labels and context.unlabelled is None)
            found[name] = family.split(context.data, name, tell=True, objects=objects, otherwise=OR_IMAGES)
    result = contents(found)
    if context.unlabelled is not None:
        result["the images"] = family.split(context.unlabelled, "train", tell=True).signature()
    return result


def noting_weights(checkpoint: Checkpoint, weights: str) -> Checkpoint:
    """The checkpoint, with the source file recorded in its last cut or class selection."""
    history = list(checkpoint.history)
    place = max(place for place, entry in enumerate(history) if entry.verb in {"prune", NARROWED})
    settings = {**history[place].settings, "weights": str(Path(weights).absolute())}
    history[place] = dataclasses.replace(history[place], settings=settings)
    return dataclasses.replace(checkpoint, history=tuple(history))


def _say_what_was_cut(folder: Path, steps: Sequence[Step]) -> None:
    if any(isinstance(step, Prune) for step in steps):
        print(Plan.from_dict(read_json(folder / "plan.json")))


def _next_line(verb: str, file: Path, made: Checkpoint, options: Any, context: Context, steps: Sequence[Step]) -> str:
    """The suggested next command, ready to paste."""
    if verb == "heal":
        return prediction(file, made, looked_at(context.data, options.images))
    zeroed = bool(steps) and isinstance(steps[-1], ZeroWeights)
    sized = _export_of_sized(file, options, steps)
    return sized or after_cut(file, made, data=options.data, images=options.images, zeroed=zeroed)


def _export_of_sized(file: Path, options: Any, steps: Sequence[Step]) -> str:
    """The export command for the file format whose size was a budget; "" without such a budget."""
    from secateur.deploy.file_size import settings_of_file

    budgets = [budget for step in steps if isinstance(step, Prune) for budget in step.channels.budgets]
    sized = next((budget for budget in budgets if COSTS[budget.cost].files), None)
    if sized is None:
        return ""
    how = settings_of_file(sized.file)
    read = {"data": options.data, "images": options.images} if how.precision == "int8" else {}
    return pasted("export", weights=file, format=how.format, precision=how.precision, **read)
