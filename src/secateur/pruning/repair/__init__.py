"""Repair of a cut without training: constants, batch-norm statistics, and weights of layers that lost inputs."""

from secateur.pruning.repair.correction import Shorter, WholeStatistics, correct_, counterparts
from secateur.pruning.repair.norms import absorb_offsets, reestimate_batchnorm_
from secateur.pruning.repair.reconstruction import Moments, moments_of_inputs, reconstruct_
from secateur.pruning.repair.repairing import Repair

__all__ = [
    "Moments",
    "Repair",
    "Shorter",
    "WholeStatistics",
    "absorb_offsets",
    "correct_",
    "counterparts",
    "moments_of_inputs",
    "reconstruct_",
    "reestimate_batchnorm_",
]
