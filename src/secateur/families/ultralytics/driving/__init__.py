"""Runs the validators and trainers of the package from Secateur."""
