"""The end of a command: the change against the dense network, and the suggested next command."""
