"""The sections of the page: one file per section, in the order of the page."""
