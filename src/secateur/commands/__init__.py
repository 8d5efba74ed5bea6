"""The commands: one file each, found by itself; a command's options stand beside it. Imports no torch."""
