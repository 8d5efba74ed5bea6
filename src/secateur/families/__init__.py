"""Families of networks, one folder each: how networks are built, trained, evaluated, distilled and exported."""
