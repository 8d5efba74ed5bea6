"""Commands that look at what others made."""

from secateur.commands.comparing import compare, report

__all__ = ["compare", "report"]
