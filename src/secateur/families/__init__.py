"""Families of networks: what each of them is built from, answers and learns; one folder a family."""
