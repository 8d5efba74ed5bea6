"""The options of a cut and of one-shot weight pruning; imports no torch, so the command line can read it fast."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.errors import UserError

SEARCHES = ("eagleeye",)
TIES = ("mean", "sum", "max", "min")


@dataclass(frozen=True)
class PruneSettings:
    """What to remove, by which score, and how to repair the cut."""

    percent: float | None = None
    """Share of the prunable channels to remove, between 0 and 1 (as --percent of the slimming scripts)."""
    params: str = ""
    """Parameters to keep: a share of the dense model (0.5) or a number (2e6, 2M)."""
    flops: str = ""
    """FLOPs to keep at --image-size: a share of the dense model (0.5) or a number (3.2G)."""
    criterion: str = "gamma"
    """Importance of a channel: gamma, gamma_kernel, l1, l2, taylor, fisher or random."""
    tie: str = "mean"
    """Score of channels that are tied by residual sums: mean, sum, max (a channel stays if any of its layers wants it,
    as in SlimYOLOv3) or min (only if all want it)."""
    min_share: float = 0.05
    """No group of tied channels keeps less than this share of its width."""
    min_count: int = 1
    """No group of tied channels keeps fewer channels than this."""
    round_to: int = 1
    """Kept widths are multiples of this number (8 or 16 make CPUs and GPUs faster)."""
    exclude: tuple[str, ...] = ()
    """Layers that keep all channels, as patterns of their names (model.0.*)."""
    absorb: bool = True
    """Move the constants of removed channels into the layers that read them."""
    recalibrate: int = 256
    """Training images, without labels, on which BatchNorm statistics are re-estimated (0: off)."""
    recalibrate_share: float = 0.5
    """How far the statistics move to the re-estimated ones: 1 all the way, as in EagleEye; half way is safer."""
    cliff: bool = True
    """Measure the accuracy of the masked model at a ladder of ratios before cutting."""
    cliff_images: int = 64
    """Validation images used for the cliff curve (0: all)."""
    statistics_images: int = 256
    """Labelled training images that criteria with gradients read."""
    layers: int = 0
    """Bottlenecks to remove, lowest score first, before any channels."""
    layer_score: str = "contribution"
    """Score of a bottleneck x + F(x): contribution (||F(x)|| / ||x + F(x)|| on training images), gamma, gamma_kernel
    (both of its last convolution) or taylor (change of the loss, from labelled images)."""
    any_layer: bool = False
    """Bottlenecks without a residual sum may go too, where they keep the width (that removes a transform, not a
    correction)."""
    min_bottlenecks: int = 0
    """A chain of bottlenecks keeps at least as many (0: it may vanish)."""
    chains: bool = False
    """Remove whole chains: --layers counts chains, and all bottlenecks of a chain go together."""
    search: str = ""
    """eagleeye: search the widths of all layers by evaluation instead of one global threshold."""
    candidates: int = 60
    """Allocations that the search evaluates, the global threshold's among them."""
    search_images: int = 64
    """Training images on which the search ranks allocations, so that validation stays unseen (0: all)."""
    tolerance: float = 0.02
    """An allocation of the search may miss the budget by this share of the dense model."""
    unstructured: float = 0.0
    """Share of the weights of every convolution to zero instead of cutting channels (Ultralytics' prune)."""
    pattern: str = "1x1"
    """With --unstructured: blocks that are zeroed together, as --pruning-pattern of the training."""
    scope: str = "layer"
    """With --unstructured: layer (each convolution loses the share) or global (one threshold for all)."""

    def __post_init__(self) -> None:
        if self.tie not in TIES:
            raise UserError(f"--tie {self.tie} is unknown; choose {', '.join(TIES[:-1])} or {TIES[-1]}.")
        for name in ("layers", "min_bottlenecks"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 0.")
        if self.chains and self.min_bottlenecks:
            raise UserError("--chains removes whole chains, so --min-bottlenecks must be 0 with it.")
        if self.search not in ("", *SEARCHES):
            raise UserError(f"--search {self.search} is unknown; choose {' or '.join(SEARCHES)}, or leave it out.")
        if self.candidates < 1 or self.search_images < 0:
            raise UserError(
                f"--candidates {self.candidates} and --search-images {self.search_images} must be at least 1 and 0."
            )
        if not 0 < self.tolerance < 1:
            raise UserError(f"--tolerance {self.tolerance:g} is not between 0 and 1; 0.02 is usual.")
