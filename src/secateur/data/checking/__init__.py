"""Checks of a split: locations of labels, images and their labels, key points, and the cache."""
