"""`secateur run`: a recipe in one resumable folder, from the opening lines to the final table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from secateur.checkpoints.training import contents, known_epochs
from secateur.errors import UserError
from secateur.families.context import Context
from secateur.families.evaluation import usable_size
from secateur.families.family import family_of
from secateur.families.loading import load_checkpoint
from secateur.families.only_classes import ClassesLeftOut, left_out
from secateur.machine import pick_device, processor
from secateur.networks.checkpoint import Checkpoint
from secateur.pruning.costs import COSTS
from secateur.report.page import PAGE, leave_page
from secateur.report.table import print_table, write_markdown
from secateur.runs.about import note_about
from secateur.runs.beginning import beginning
from secateur.runs.compare.difference import difference_line, first_to_last
from secateur.runs.ending.next_line import after_run, say
from secateur.runs.folders import Summary, require
from secateur.runs.options import RunOptions
from secateur.runs.pipeline import PipelineResult, check_steps, do_steps, one_process
from secateur.runs.progress import LOG_FILE, Progress, key_of
from secateur.runs.recipes.recipe import Recipe, load_recipe
from secateur.runs.recipes.resolve import PlannedStep, resolve, with_control
from secateur.runs.rows import save_result
from secateur.runs.what_if import show_forecast_of_run
from secateur.steps.control import Control
from secateur.steps.measure import Measure
from secateur.steps.train import TrainingStep
from secateur.training.optimization.precision import choose_precision


def run_recipe(options: RunOptions, root: Path) -> Summary:
    """Runs or resumes the recipe. Returns the summary that is also written as summary.json and summary.md.

    Args:
        options: options of the run.
        root: parent folder of the runs.

    Raises:
        UserError: options or input are invalid; checked before anything is written if possible.
    """
    one_process("run")
    if options.control_epochs and not options.control:
        raise UserError("--control-epochs sets the length of a control. Add --control.")
    data_file = require(options.data, "--data", "data.yaml")
    recipe = load_recipe(options.recipe)
    device = pick_device(options.device)
    classes = options.classes or recipe.classes
    begun = beginning(options.weights, options.cfg, data_file, seed=options.seed, classes=classes)
    start, data, trained = begun.start, begun.data, begun.trained
    family = family_of(start)
    image_size = usable_size(start, options.image_size)
    common = {name: getattr(options, name) for name in ("batch_size", "seed", "workers", "device")}
    common["image_size"] = image_size
    steps = resolve(recipe, options.overrides, common, trained=trained)
    if not any(isinstance(planned.step, Measure) for planned in steps):
        steps = (*steps, PlannedStep(Measure()))
    before = known_epochs(start) if trained else 0
    if options.control or (options.control is None and may_be_cheap(steps, start, before)):
        images, cheap = len(family.split(data, "train")), options.control is None
        steps = with_control(steps, common, before=before, images=images, epochs=options.control_epochs, cheap=cheap)
    context = Context(image_size, device, data, options.batch_size, options.workers, options.seed)
    # Detect invalid data now rather than after an hour.
    found = contents({name: family.split(data, name, tell=True) for name in ("train", "val")})
    check_steps(steps, start, context)
    for line in opening(options, recipe, steps, start, context):
        print(line)
    if options.what_if:
        if not trained:
            raise UserError("--what-if needs trained weights, but this run first trains. Set --weights best.pt.")
        return show_forecast_of_run(options, steps, start, context)
    files = {"weights": options.weights, "data": options.data, "cfg": options.cfg}
    given = {**options.overrides, **common, **files, **({"classes": classes} if classes else {})}
    key = key_of(given, found, files.values(), steps)
    with Progress.open(root, options.place.name, key) as progress:
        print(f"folder   {progress.folder}")
        note_about(progress.folder, "run", options, start, context, steps, recipe=recipe.name,
                   budget=budget_line(options, recipe, steps).partition(" (")[0])  # fmt: skip
        result = do_steps(steps, start, context, progress)
        narrowed = None
        if classes:
            narrowed = left_out(load_checkpoint(options.weights, options.cfg), start, image_size)
        summary = closing(progress, result, recipe, image_size, narrowed)
        exported = summary["export"]["file"] if summary["export"] else ""
        say(after_run(progress.folder, result.checkpoint, data, exported))
        return summary


def may_be_cheap(steps: Sequence[PlannedStep], start: Checkpoint, before: int | None) -> bool:
    """Whether a control can be added without being requested.

    Requires that the run trains and has no control yet, that all epochs are known, and that the network can be
    narrowed.
    """
    trains = any(isinstance(planned.step, TrainingStep) for planned in steps)
    if not trains or before is None or any(isinstance(planned.step, Control) for planned in steps):
        return False
    family = family_of(start)
    if not family.knows("narrow"):
        return False
    try:
        family.check_narrow(start)
    except UserError:
        return False
    return True


def opening(
    options: RunOptions, recipe: Recipe, steps: Sequence[PlannedStep], start: Checkpoint, context: Context
) -> list[str]:
    """The lines that describe a run before it starts."""
    assert context.data is not None
    family, data = family_of(start), context.data
    splits = ", ".join(f"{len(family.split(data, name))} {name}" for name in data.splits)
    precision = choose_precision(options.overrides.get("amp", "auto"), context.device.type)
    return [
        f"recipe   {recipe.name}: {recipe.summary}",
        f"device   {context.device} ({processor()}), training precision {'fp32' if precision == 'no' else precision}",
        f"start    {options.weights or options.cfg}: {start.nc} classes, {context.image_size} px",
        f"data     {options.data}: {splits} images",
        f"budget   {budget_line(options, recipe, steps)}",
        f"steps    {', '.join(planned.step.describe() for planned in steps)}",
    ]


def budget_line(options: RunOptions, recipe: Recipe, steps: Sequence[PlannedStep]) -> str:
    """The budget that applies, and where it was set."""
    given = [f"{name} {options.overrides[name]}" for name in COSTS if name in options.overrides]
    if given:
        return f"{', '.join(given)} (from the command line)"
    brought = [words for planned in steps if (words := planned.step.budget_words())]
    if not brought:
        return "none: this recipe cuts no channels"
    return f"{', '.join(dict.fromkeys(brought))} (from the recipe; override it with --flops 0.5, for example)"


def closing(
    progress: Progress,
    result: PipelineResult,
    recipe: Recipe,
    image_size: int,
    narrowed: ClassesLeftOut | None = None,
) -> Summary:
    """Saves the final detector, prints the table and the artefacts, and writes summary.json and summary.md."""
    folder, last = progress.folder, result.last
    saved = save_result(result.checkpoint, folder / "final.safetensors", image_size)
    plans = [note for name, note in result.notes.items() if name.startswith("plan")]
    exports = [note for name, note in result.notes.items() if name.startswith("export")]
    summary: Summary = {
        "command": "run",
        "recipe": recipe.name,
        "folder": str(folder),
        "metrics": last["metrics"],
        "model": last["model"],
        "speed_ms": last["speed_ms"],
        "export": exports[-1] if exports else None,
        "plan": plans[-1] if plans else None,
        "control": result.notes.get("control"),
        "table": result.rows,
        "difference": first_to_last(folder, result.rows),
    }
    if narrowed is not None:
        summary["classes"] = narrowed.to_dict()
    write_markdown(folder / "summary.md", result.rows, f"Run {folder.name}, recipe {recipe.name}")
    progress.finish(summary)
    leave_page(folder)
    print_table(result.rows)
    if line := difference_line(summary["difference"]):
        print(line)
    if narrowed is not None:
        print(narrowed)
    made = {
        "detector": folder / "final.safetensors",
        **{f"{entry['format']} file": folder / entry["file"] for entry in exports},
        "control": folder / "control.safetensors",
        "report": folder / PAGE,
        "table": folder / "summary.md",
        "plan": folder / "plan.json",
        "cliff curve": folder / "cliff.png",
        "curves": folder / "evaluation",
        "log": folder / LOG_FILE,
    }
    for name, path in made.items():
        if path.exists():
            print(f"{name:<12} {path}")
    for line in saved[1:]:
        print(line)
    return summary
