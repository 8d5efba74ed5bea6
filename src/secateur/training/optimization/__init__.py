"""The optimizer step: parameter groups, learning-rate schedules, precision, and the moving average."""
