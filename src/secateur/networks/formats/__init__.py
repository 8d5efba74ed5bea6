"""Readers and writers of files that never execute content."""
