"""The network of an export as TorchScript, which several formats start from."""

from __future__ import annotations

import torch

from secateur.deploy.settings import ExportSettings
from secateur.deploy.source import Source
from secateur.errors import UserError
from secateur.silence import silenced


def traced(source: Source, settings: ExportSettings, title: str) -> torch.jit.ScriptModule:
    """What `Source.network` gives, as a trace at the size and batch of the settings.

    Args:
        title: the format, for sentences.

    Raises:
        UserError: the detector cannot be traced.
    """
    network, example = source.network(settings).eval(), source.example(settings)
    with silenced(), torch.no_grad():
        try:
            # Not strict: the maps of a head come as a list. The check of every export is better than the tracer's.
            traced: torch.jit.ScriptModule = torch.jit.trace(network, example, strict=False, check_trace=False)
        except Exception as error:  # the tracer raises whatever it met
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"This detector cannot be exported to {title}: {reason}.") from error
    return traced
