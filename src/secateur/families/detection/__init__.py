"""What families of detectors share."""
