"""Channel pruning: trace a network, score its units, choose a plan, cut and repair."""
