"""The step that cuts channels to fit a budget and repairs the detector."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from secateur.pruning.costs import COSTS
from secateur.pruning.options import ChannelSettings
from secateur.pruning.settings import LayerSettings, RepairSettings
from secateur.steps.step import Made, Outcome, Override, Step, step

if TYPE_CHECKING:
    from secateur.families.context import Context
    from secateur.networks.checkpoint import Checkpoint
    from secateur.pruning.cliff import Cliff


def _names(kind: type[Any]) -> set[str]:
    return {entry.name for entry in dataclasses.fields(kind)}


class _Overrides:
    """Overrides for the budgets of all costs and for the other settings.

    Computed on access, because a plug-in may import this module while the costs are being discovered.
    """

    def __get__(self, step: Prune | None, kind: type[Prune]) -> tuple[Override, ...]:
        return (
            *(Override(cost.name, cost.name, cost.help, replaces=tuple(COSTS)) for cost in COSTS.values()),
            Override("criterion", "criterion", "Importance criterion of channels: {secateur.pruning.criteria}."),
            Override(
                "protect", "protect", "Objects that get more weight in the scores: small, medium, large or pixels."
            ),
            Override("rounds", "rounds", "Rounds of scoring, cutting and correcting: auto, or a number."),
            Override(
                "round_to",
                "round_to",
                "Round kept widths to a multiple of this number. auto benchmarks this machine once and uses "
                "the fastest multiple.",
                int | Literal["auto"],
                word="INT/auto",
            ),
            Override("latency_table", "latency_table", "Latency table for --ms, written by `secateur latency`."),
            Override("runtime", "runtime", "Runtime to measure for --ms without a table: onnx or torch."),
            Override("threads", "threads", "CPU threads while measuring for --ms without a table.", int),
            Override("exclude", "exclude", "Name patterns of layers that keep all channels and weights.", tuple),
        )


@step("prune", purpose="cuts channels")
@dataclass(frozen=True)
class Prune(Step):
    """Cut channels to fit a budget, then repair the detector."""

    channels: ChannelSettings = field(default_factory=ChannelSettings)

    overrides = _Overrides()

    @classmethod
    def expand(cls, settings: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """Expands an entry that also removes layers or zeroes weights into several steps."""
        if settings.get("unstructured"):
            return [("zero_weights", dict(settings))]
        layers = {name: value for name, value in settings.items() if name in _names(LayerSettings)}
        if not settings.get("layers"):
            return [(cls.verb, dict(settings))]
        rest = {name: value for name, value in settings.items() if name not in layers}
        shared = {name: value for name, value in rest.items() if name in {"title", *_names(RepairSettings)}}
        steps = [("remove_layers", layers | shared)]
        # Even without a budget, check the other settings, to catch misspelt names.
        return [*steps, (cls.verb, rest)] if set(rest) - set(shared) else steps

    @property
    def title(self) -> str:
        """Title of its table rows."""
        return "cut"

    def describe(self) -> str:
        """The budgets."""
        return f"prune ({self.budget_words()})"

    def budget_words(self) -> str:
        """The budgets."""
        return ", ".join(str(budget) for budget in self.channels.budgets)

    def files(self) -> tuple[str, ...]:
        """The latency table, if any."""
        table = self.channels.latency.latency_table
        return (table,) if table else ()

    def check(self, checkpoint: Checkpoint, context: Context) -> None:
        """Checks names, ranges, excluded layers, and whether the budget can be reached."""
        from secateur.checkpoints.channels import check_channels

        check_channels(checkpoint, context, self.channels)

    def run(self, checkpoint: Checkpoint, context: Context) -> Outcome:
        """Decides what to cut (and computes the cliff curve around the decision), cuts, and repairs. Returns two
        rows.
        """
        from secateur.checkpoints.channels import cut_channels, prune
        from secateur.files import read_json, write_json
        from secateur.pruning.plan import Plan
        from secateur.pruning.prune import Kept
        from secateur.report.run_folder_plots import draw_cliff
        from secateur.report.unit_scores import write_scores

        folder = context.place("cliff") if context.name_suffix else context.place("")
        plan_file, cliff_file = folder / "plan.json", folder / "cliff.json"

        def decided(plan: Plan, curve: Cliff | None) -> None:
            if curve is not None:
                write_json(cliff_file, curve.to_dict())
                draw_cliff(folder, curve)
            write_json(plan_file, plan.to_dict())
            if curve is not None:
                print(curve.table())

        # If this file exists, the run was interrupted after the decision.
        known = Plan.from_dict(read_json(plan_file)) if plan_file.is_file() else None
        kept = Kept(folder, known, decided, scored=functools.partial(write_scores, folder))
        repaired, pruned = prune(checkpoint, context, self.channels, kept)
        plan = pruned.plan
        warning = read_json(cliff_file)["warning"] if cliff_file.is_file() else None
        sized = self._sized(repaired, context)
        note = {"parameters": plan.after.parameters, "flops": plan.after.flops, "warning": warning}
        made = (
            Made(cut_channels(checkpoint, pruned.graph, plan), "cut", f"{context.title}, no repair"),
            Made(repaired, "repair", f"{context.title} + repair"),
        )
        return Outcome(made, {"plan": note | sized | {"notes": list(plan.notes)}})

    def _sized(self, checkpoint: Checkpoint, context: Context) -> dict[str, Any]:
        """Exports the files whose size is a budget, logs their sizes, and deletes them."""
        from secateur.deploy.exporters import bytes_written
        from secateur.deploy.exporting import about
        from secateur.deploy.file_size import settings_of_file

        found = {}
        for budget in self.channels.budgets:
            if COSTS[budget.cost].files:
                how = settings_of_file(budget.file)
                kind, network = f"{how.format}-{how.precision}", checkpoint.build()
                found[kind] = bytes_written(network, context.image_size, how, about(checkpoint)) / 1e6
                print(f"Its {kind} file at {context.image_size} px: {found[kind]:.3f} MB (budget: {budget})")
        return {"file_mb": found} if found else {}
