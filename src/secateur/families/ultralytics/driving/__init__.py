"""The package's own validators and trainers, driven by the commands of Secateur."""
