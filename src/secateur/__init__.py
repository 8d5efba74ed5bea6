"""Secateur makes trained YOLO detectors smaller and faster and keeps their accuracy."""
