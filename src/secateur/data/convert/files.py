"""Names of images in annotations: which of them are to be trusted."""

from __future__ import annotations

from pathlib import Path, PurePosixPath


def leads_out(name: str) -> bool:
    """Whether a name in a file of annotations is more than a name in the folder of the images."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or name[1:2] == ":"  # a drive


def is_file(path: Path) -> bool:
    """Whether there is such a file; there is none where the system takes no such name."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than the system allows, or with a NUL
        return False
