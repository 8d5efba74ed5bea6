"""Formats and runtimes. Each module registers how a format is written, opened, timed and profiled."""
