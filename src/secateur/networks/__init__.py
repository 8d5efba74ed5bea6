"""Networks as plain data and tensors: checkpoints, their files and their classes."""
