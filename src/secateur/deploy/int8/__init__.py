"""Post-training quantisation: images to calibrate on, int8 graphs, and what it costs in accuracy."""
