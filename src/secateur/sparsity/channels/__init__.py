"""Methods that make channels dispensable while training: penalties on scales and filters, and the soft mask."""
