"""`secateur pareto`: networks cut to several budgets, and the curve of their accuracy against time."""
