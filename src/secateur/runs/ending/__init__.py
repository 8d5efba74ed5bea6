"""What a command ends with: what has changed, and the line that can be pasted next."""
