"""Commands that compare or report existing results."""

from secateur.commands.comparing import compare, report

__all__ = ["compare", "report"]
