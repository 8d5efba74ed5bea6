"""As `l2`, but classes as a softened distribution: the Kullback-Leibler divergence of softmaxes (Intel's `kl`)."""

from __future__ import annotations

from torch import Tensor

from secateur.families.yolov5.distillation import DISTILLATIONS
from secateur.families.yolov5.distillation.l2 import SquaredOutputs


@DISTILLATIONS.register("kl")
class SoftmaxClasses(SquaredOutputs):
    """d_cls = cls gain * mean[w T^2 p_t (log p_t - log p_s)] with p = softmax(class logits / T), T = 20.

    T^2 keeps the gradient's size when T changes (Hinton et al. 2015). With one class there is nothing to compare.
    """

    def classes(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Elements of T^2 KL(teacher || student), [B, na, ny, nx, nc]; their sum over classes is never negative."""
        heat = self.temperature(20.0)
        here, there = (student / heat).log_softmax(-1), (teacher / heat).log_softmax(-1)
        return heat**2 * there.exp() * (there - here)
