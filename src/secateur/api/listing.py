"""Lists of available methods by name, including those of the user's plug-ins."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from secateur.deploy.exporters import EXPORTERS
from secateur.families.family import FAMILIES
from secateur.pruning.costs import COSTS
from secateur.pruning.graph.flow import OPERATORS
from secateur.pruning.importance import CRITERIA
from secateur.pruning.layer_scores import LAYER_SCORES
from secateur.runs.recipes.recipe import available
from secateur.sparsity.criteria import WEIGHT_CRITERIA
from secateur.sparsity.patterns import PATTERNS
from secateur.sparsity.rates import RATES
from secateur.sparsity.schedules import SPARSITY_SCHEDULES
from secateur.steps.step import STEPS


def _listing(name: str, names: Iterable[str], example: str, what: str) -> Callable[[], list[str]]:
    """A function that returns the names of a registry, with a docstring."""

    def listing() -> list[str]:
        return list(names)

    listing.__name__ = listing.__qualname__ = name
    listing.__doc__ = f"{what}\n\n>>> {example!r} in {name}()\nTrue\n"
    return listing


list_criteria = _listing("list_criteria", CRITERIA, "fisher", "Importance criteria of channels, for `criterion`.")
list_layer_scores = _listing(
    "list_layer_scores", LAYER_SCORES, "taylor", "Importance scores of bottlenecks, for `layer_score`."
)
list_costs = _listing("list_costs", COSTS, "flops", "Costs that a budget can limit, such as `flops=0.5`.")
list_operators = _listing("list_operators", OPERATORS, "linear", "Operators supported by the channel graph.")
list_patterns = _listing(
    "list_patterns", PATTERNS, "NxM", "Block patterns for `pruning_pattern`: 4x1 is an example of NxM, 2:4 of N:M."
)
list_weight_criteria = _listing(
    "list_weight_criteria", WEIGHT_CRITERIA, "snip", "Importance criteria of weights, for `pruning_criterion`."
)
list_weight_schedules = _listing(
    "list_weight_schedules", SPARSITY_SCHEDULES, "cubic", "Schedules for zeroing weights, for `pruning_schedule`."
)
list_schedules = _listing("list_schedules", RATES, "cosine", "Schedules of the penalty on channels, for `schedule`.")
list_formats = _listing("list_formats", EXPORTERS, "onnx", "Export formats, for `format`.")
list_families = _listing("list_families", FAMILIES, "yolov5", "Network families.")
list_steps = _listing("list_steps", STEPS, "prune", "Verbs of recipes.")


def list_distillations(family: str = "yolov5") -> list[str]:
    """Distillation methods of a family, for `distill`.

    >>> "bce" in list_distillations(), list_distillations("module")
    (True, ['outputs', 'features'])
    """
    return list(FAMILIES[family].distillations())


def list_recipes() -> list[str]:
    """Recipes of `secateur run`.

    >>> "best" in list_recipes()
    True
    """
    return [recipe.name for recipe in available()]
