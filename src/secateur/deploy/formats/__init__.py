"""Formats of files and what runs them: a module registers how a format is written, opened, timed and profiled."""
