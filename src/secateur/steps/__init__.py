"""The verbs of recipes, one file per step. Steps are discovered automatically. Imports no torch before a step runs."""
