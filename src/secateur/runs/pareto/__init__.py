"""`secateur pareto`: cuts networks to several budgets and plots accuracy against latency."""
