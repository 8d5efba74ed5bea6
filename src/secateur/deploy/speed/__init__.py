"""How fast detectors are on this machine, why they are not faster, and which widths it likes."""
