"""Downloads official weights by name from their GitHub release, verified by a SHA-256 digest."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import DownloadColumn, TransferSpeedColumn

from secateur.errors import UserError
from secateur.files import atomic_write
from secateur.terminal import bar

_DOWNLOADS = "https://github.com"
_API = "https://api.github.com"
_TIMEOUT = 30  # seconds without a response
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Asset:
    """Location of an official file: repository, release tag, and SHA-256 if known."""

    repository: str
    tag: str
    sha256: str | None = None


_YOLOV5 = Asset("ultralytics/yolov5", "v7.0")
_YOLOV3 = Asset("ultralytics/yolov3", "v9.6.0")
ASSETS: dict[str, Asset] = {
    **{f"yolov5{size}{suffix}.pt": _YOLOV5 for suffix in ("", "6") for size in "nsmlx"},
    **{f"yolov3{suffix}.pt": _YOLOV3 for suffix in ("", "-spp", "-tiny")},
    "yolov5n.pt": Asset(
        "ultralytics/yolov5", "v6.1", "4f180cf23ba0717ada0badd6c685026d73d48f184d00fc159c2641284b2ac0a3"
    ),
}


def is_official(name: str) -> bool:
    """Whether a file of this name can be downloaded."""
    return name in ASSETS


def fetch(path: Path, *, downloads: str = _DOWNLOADS, api: str = _API) -> None:
    """Downloads the official file named `path.name` to `path`, with a progress bar on stderr.

    Args:
        path: target path; its name selects the file.
        downloads: URL of the release downloads.
        api: URL of the GitHub API, for digests that are not listed here.

    Raises:
        UserError: there is no network, or the digest is missing or wrong; the message explains how to install the file
            manually.
    """
    asset = ASSETS[path.name]
    url = f"{downloads}/{asset.repository}/releases/download/{asset.tag}/{path.name}"
    by_hand = f"Download {url} yourself and save it as {path.absolute()}"
    try:
        expected = asset.sha256 or _published_digest(asset, path.name, api)
        if expected is None:
            raise UserError(f"The release of {path.name} has no checksum, so it is not downloaded. {by_hand}.")
        with urllib.request.urlopen(_request(url), timeout=_TIMEOUT) as answer, atomic_write(path) as temporary:
            found = _receive(answer, temporary, path.name)
            if found != expected:
                raise UserError(f"The download of {path.name} has the wrong checksum {found}. {by_hand}.")
    except (OSError, ValueError) as error:
        # An HTTP error includes its status code; the cause of a network error is one level down.
        reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", None) or error
        raise UserError(f"Cannot download {path.name} ({reason}). {by_hand}.") from error


def _request(url: str) -> urllib.request.Request:
    return urllib.request.Request(url, headers={"User-Agent": "secateur"})


def _published_digest(asset: Asset, name: str, api: str) -> str | None:
    """The SHA-256 that GitHub publishes for a release file, if any."""
    url = f"{api}/repos/{asset.repository}/releases/tags/{asset.tag}"
    with urllib.request.urlopen(_request(url), timeout=_TIMEOUT) as answer:
        release = json.load(answer)
    for entry in release.get("assets", []):
        digest = entry.get("digest") or ""
        if entry.get("name") == name and digest.startswith("sha256:"):
            return str(digest.removeprefix("sha256:"))
    return None


def _receive(answer: Any, target: Path, name: str) -> str:
    """Writes a response to a file and returns its SHA-256."""
    digest = hashlib.sha256()
    total = int(answer.headers.get("Content-Length") or 0) or None
    with bar("{task.description}", DownloadColumn(), TransferSpeedColumn()) as progress, target.open("wb") as file:
        task = progress.add_task(name, total=total)
        while chunk := answer.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            progress.update(task, advance=len(chunk))
    return digest.hexdigest()
