"""The repository that is tested, the folder from which the tests were started, and what tests might leave there."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
STARTED_IN = Path.cwd()


def entries(repository: Path) -> set[Path]:
    """Files and folders where a test might leave some by mistake; caches, whose names begin with a dot, left out."""
    folders = [repository, repository / "runs", repository / "tests", *(repository / "tests").glob("[!_.]*/")]
    found = (entry for folder in folders if folder.is_dir() for entry in folder.iterdir())
    return {entry for entry in found if not entry.name.startswith((".", "__pycache__"))}
