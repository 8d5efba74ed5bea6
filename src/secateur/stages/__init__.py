"""The verbs: train, sparsify, prune, evaluate, export, and the resumable run of all of them."""
