"""Any network of the user's own: its functions come with the call, and its file holds the tensors alone."""

from __future__ import annotations

from secateur.families.family import FAMILIES, Family
from secateur.networks.plain_module import PlainModule


class ModuleFamily(Family):
    """Networks that no file can build."""

    kind = PlainModule.kind
    title = "plain module"
    architecture = PlainModule


FAMILIES.register(ModuleFamily.kind)(ModuleFamily())
