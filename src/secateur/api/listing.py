"""What there is to choose from, by name: the methods of the package and those of the user's plugins."""

from __future__ import annotations

from secateur.deploy.exporters import EXPORTERS
from secateur.distillation.losses import DISTILLATIONS
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


def list_criteria() -> list[str]:
    """Criteria of channels, for `criterion`.

    >>> list_criteria()
    ['fisher', 'gamma', 'gamma_kernel', 'l1', 'l2', 'random', 'taylor']
    """
    return list(CRITERIA)


def list_layer_scores() -> list[str]:
    """Scores of bottlenecks, for `layer_score`.

    >>> list_layer_scores()
    ['contribution', 'gamma', 'gamma_kernel', 'taylor']
    """
    return list(LAYER_SCORES)


def list_costs() -> list[str]:
    """What a budget can limit: `flops=0.5`, for example.

    >>> list_costs()
    ['flops', 'ms', 'params', 'percent']
    """
    return list(COSTS)


def list_operators() -> list[str]:
    """Operators through which the channel graph follows channels; any other one keeps all channels that it reads.

    >>> "convolution" in list_operators()
    True
    """
    return list(OPERATORS)


def list_weight_criteria() -> list[str]:
    """Criteria of weights that a training zeroes, for `pruning_criterion`.

    >>> list_weight_criteria()
    ['gradient', 'magnitude', 'snip', 'snip_momentum']
    """
    return list(WEIGHT_CRITERIA)


def list_patterns() -> list[str]:
    """Forms of the blocks in which weights are zeroed, for `pruning_pattern`: 4x1 is an NxM, 2:4 an N:M.

    >>> list_patterns()
    ['N:M', 'NxM']
    """
    return list(PATTERNS)


def list_weight_schedules() -> list[str]:
    """Courses of the share of zero weights, for `pruning_schedule`.

    >>> list_weight_schedules()
    ['cosine', 'cube', 'cubic', 'exp', 'linear', 'oneshot']
    """
    return list(SPARSITY_SCHEDULES)


def list_schedules() -> list[str]:
    """Courses of the penalty of a sparse training, for `schedule`.

    >>> list_schedules()
    ['constant', 'cosine', 'linear', 'local', 'step']
    """
    return list(RATES)


def list_distillations() -> list[str]:
    """What a student can imitate, for `distill`.

    >>> "features" in list_distillations()
    True
    """
    return list(DISTILLATIONS)


def list_formats() -> list[str]:
    """Formats of exported files, for `format`.

    >>> "onnx" in list_formats()
    True
    """
    return list(EXPORTERS)


def list_families() -> list[str]:
    """Families of networks that are known here.

    >>> list_families()
    ['module', 'yolov5']
    """
    return list(FAMILIES)


def list_steps() -> list[str]:
    """Verbs of recipes.

    >>> "prune" in list_steps()
    True
    """
    return list(STEPS)


def list_recipes() -> list[str]:
    """Recipes of `secateur run`.

    >>> "best" in list_recipes()
    True
    """
    return [recipe.name for recipe in available()]
