"""Recipes: read from YAML, combined with command-line options, and checked."""
