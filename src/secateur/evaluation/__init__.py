"""Evaluation: validation metrics, costs, latency, and statistics for comparing networks."""
