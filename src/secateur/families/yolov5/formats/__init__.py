"""File formats of the YOLOv5 family: published checkpoints, forks and state dicts."""
