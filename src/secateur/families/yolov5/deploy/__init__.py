"""Exported files of this family: their outputs, decoders, and recognition of files of other programs."""
