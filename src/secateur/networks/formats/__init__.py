"""Readers and writers of files that execute nothing from them."""
