"""Code shared by all families of detectors: data sets with boxes, their splits, and labels from detections."""
