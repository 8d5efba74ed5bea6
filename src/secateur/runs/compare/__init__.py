"""`secateur compare`: networks measured on the same images, and what is sure about their differences."""
