"""`python -m secateur` runs the `secateur` command."""

from secateur.cli import main

if __name__ == "__main__":
    main()
