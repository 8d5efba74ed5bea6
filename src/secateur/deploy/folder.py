"""`metadata.yaml`: what a folder of files for another runtime says of itself."""

from __future__ import annotations

from pathlib import Path

import yaml

from secateur.deploy.metadata import Metadata
from secateur.errors import UserError
from secateur.yaml_files import read_yaml

NAME = "metadata.yaml"


def write_metadata(folder: Path, metadata: Metadata) -> None:
    """Puts the file into a folder."""
    text = yaml.safe_dump(metadata.to_dict(), sort_keys=False, allow_unicode=True)
    (folder / NAME).write_text(text, encoding="utf-8")


def read_metadata(folder: Path) -> Metadata:
    """What the file of a folder says, with the image size, which it has to tell.

    Raises:
        UserError: the file is missing or broken, or names no image size.
    """
    file = folder / NAME
    try:
        data = read_yaml(file)
    except UserError as error:
        raise UserError(f"{folder} has no {NAME} that can be read; export it anew.") from error
    metadata = Metadata.read(data)
    if metadata.size is None:
        raise UserError(f"{file} does not tell the image size (imgsz); export it anew.")
    return metadata
