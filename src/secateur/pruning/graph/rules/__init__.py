"""Rules: what each ATen operator does to channels, grouped by subject. All files in this folder are loaded
automatically."""
