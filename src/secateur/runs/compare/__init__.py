"""`secateur compare`: evaluates networks on the same images and tests their differences for significance."""
