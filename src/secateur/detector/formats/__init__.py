"""The formats of files that checkpoints are read from: our own, and that of YOLOv5."""
