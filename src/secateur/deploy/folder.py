"""`metadata.yaml`: what a folder of files for another runtime says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from secateur.deploy.metadata import Metadata
from secateur.errors import UserError

NAME = "metadata.yaml"
_LARGEST = 10_000_000
"""Bytes; more is no list of classes."""


class _Plain(yaml.SafeLoader):
    """YAML without references, with which a short text can stand for a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As its base, which calls it for every node."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references are not read")
        return super().compose_node(parent, index)


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
        if file.stat().st_size > _LARGEST:
            raise yaml.YAMLError("too large")
        data = yaml.load(file.read_text(encoding="utf-8"), _Plain)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder} has no {NAME} that can be read ({reason}); export it anew.") from None
    metadata = Metadata.read(data)
    if metadata.size is None:
        raise UserError(f"{file} does not tell the image size (imgsz); export it anew.")
    return metadata
