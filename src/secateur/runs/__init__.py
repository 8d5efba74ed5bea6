"""Runs: recipes, options put together with them, run folders, what has been done, and the resumable pipeline."""
