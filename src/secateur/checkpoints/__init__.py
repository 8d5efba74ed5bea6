"""What is done to a checkpoint with the images of a context: cut, shorten, repair, train, heal."""
