"""Commands that look at what others made."""

from secateur.commands.comparing import report

__all__ = ["report"]
