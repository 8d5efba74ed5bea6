"""Operations on a checkpoint with the images of a context: pruning, layer removal, repair, training and healing."""
