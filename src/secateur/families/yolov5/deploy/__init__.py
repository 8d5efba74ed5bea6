"""What exported files of this family hold, how they are read, and which files of other programs are its own."""
