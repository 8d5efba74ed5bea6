"""What is done to a detector with data at hand: gather evidence, decide, cut, repair, shorten, train, measure."""
