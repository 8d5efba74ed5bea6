"""What the check of a split consists of: where labels are, one image and its labels, key points, the cache."""
