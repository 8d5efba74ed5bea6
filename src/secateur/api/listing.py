"""What there is to choose from, by name: the methods of the package and those of the user's plugins."""

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
    """A function that gives the names of a registry, with its docstring."""

    def listing() -> list[str]:
        return list(names)

    listing.__name__ = listing.__qualname__ = name
    listing.__doc__ = f"{what}\n\n>>> {example!r} in {name}()\nTrue\n"
    return listing


list_criteria = _listing("list_criteria", CRITERIA, "fisher", "Criteria of channels, for `criterion`.")
list_layer_scores = _listing("list_layer_scores", LAYER_SCORES, "taylor", "Scores of bottlenecks, for `layer_score`.")
list_costs = _listing("list_costs", COSTS, "flops", "What a budget limits: `flops=0.5`, for example.")
list_operators = _listing("list_operators", OPERATORS, "linear", "Operators through which channels are followed.")
list_patterns = _listing("list_patterns", PATTERNS, "NxM", "Forms of `pruning_pattern`: 4x1 is an NxM, 2:4 an N:M.")
list_weight_criteria = _listing(
    "list_weight_criteria", WEIGHT_CRITERIA, "snip", "Criteria of weights, for `pruning_criterion`."
)
list_weight_schedules = _listing(
    "list_weight_schedules", SPARSITY_SCHEDULES, "cubic", "Courses of zeroing weights, for `pruning_schedule`."
)
list_schedules = _listing("list_schedules", RATES, "cosine", "Courses of the penalty on channels, for `schedule`.")
list_formats = _listing("list_formats", EXPORTERS, "onnx", "Formats of exported files, for `format`.")
list_families = _listing("list_families", FAMILIES, "yolov5", "Families of networks.")
list_steps = _listing("list_steps", STEPS, "prune", "Verbs of recipes.")


def list_distillations(family: str = "yolov5") -> list[str]:
    """What a student of a family can imitate, for `distill`.

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
