"""Images and labels for all tasks of the package, and labels from predictions for images without labels."""
