"""Criteria: one file each, or one for a small family; every file here is found by itself."""
