"""Completion of commands and options in a shell."""

from secateur.commands.completing import completion

__all__ = ["completion"]
