"""Commands that look at what others made."""

from secateur.commands.comparing import compare

__all__ = ["compare"]
