"""The files of the YOLOv5 family: published checkpoints, forks of them, state dicts."""
