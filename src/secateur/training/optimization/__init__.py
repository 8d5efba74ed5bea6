"""The optimizer step: parameter groups, rates as functions of the step, precision, and the moving average."""
