"""Images and labels of every task of the package, and what a network believes to see where there are no labels."""
