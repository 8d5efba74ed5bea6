"""Recipes: read from YAML, put together with the options of the command line, their values checked."""
