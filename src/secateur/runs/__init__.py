"""Runs: recipes combined with command-line options, run folders, progress records, and the resumable pipeline."""
