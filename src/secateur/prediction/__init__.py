"""Prediction on images, videos and streams: reading, detection, and output files."""
