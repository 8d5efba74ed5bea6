"""Methods that shrink channels during training: penalties on scales and filters, and the soft mask."""
