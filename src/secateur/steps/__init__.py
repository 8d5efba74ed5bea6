"""The verbs of recipes: one file a step; every file here is found by itself. Imports no torch before a step runs."""
