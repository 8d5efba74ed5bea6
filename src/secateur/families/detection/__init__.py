"""What all families of detectors share: data sets with boxes, splits of them, labels from a network's own boxes."""
