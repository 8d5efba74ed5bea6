"""The sections of the page, one file each, in the order of the page."""
