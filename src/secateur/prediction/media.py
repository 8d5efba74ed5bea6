"""Reads media one image or frame at a time. Unreadable media are reported and skipped."""

from __future__ import annotations

import base64
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import numpy as np

from secateur.data.images import Image, ImageError, decode_image
from secateur.prediction.settings import ReadSettings
from secateur.prediction.sources import VIDEOS, Medium
from secateur.prediction.streams import MediumError, capture
from secateur.terminal import stderr_silenced

logger = logging.getLogger("secateur")

_LARGEST = 1 << 28  # maximum bytes of an image behind a URL
_NEARLY = 0.95  # share of the announced frames; some files only estimate their number
_NOT_MEDIA = ("text/", "application/json", "application/xml")


@dataclass(frozen=True)
class Frame:
    """An image, or one frame of a video.

    Attributes:
        medium: source of the image.
        pixels: BGR uint8 [H, W, 3], with the orientation of its metadata applied.
        number: number of the frame in its video, from 1; None for an image.
        rate: frames per second after skipping frames; 0 for an image.
        total: expected number of frames of its video; 0 if unknown.
    """

    medium: Medium
    pixels: Image
    number: int | None = None
    rate: float = 0.0
    total: int = 0

    @property
    def stem(self) -> str:
        """File stem of outputs for this image."""
        return self.medium.stem if self.number is None else f"{self.medium.stem}_{self.number}"

    def __str__(self) -> str:
        """Its name in messages."""
        return str(self.medium) if self.number is None else f"frame {self.number} of {self.medium}"


def read_media(
    media: Iterable[Medium], settings: ReadSettings, skipped: Callable[[Medium, str], None]
) -> Iterator[Frame]:
    """The frames of all media in order; only one is in memory at a time.

    Args:
        media: media to read.
        settings: options for reading.
        skipped: called with each unreadable medium and the reason.
    """
    for medium in media:
        try:
            yield from _frames(medium, settings)
        except (MediumError, ImageError) as reason:
            skipped(medium, str(reason))


def _frames(medium: Medium, settings: ReadSettings) -> Iterator[Frame]:
    if medium.kind == "image":
        yield Frame(medium, _decoded(_content(medium.address)))
        return
    if medium.kind == "web":
        content = _fetched(medium.address, settings.timeout)
        if content is not None:
            yield Frame(medium, _decoded(content))
            return
    with capture(medium, settings.timeout) as video:
        stride, last = settings.vid_stride, 0
        for number, pixels in video.frames(stride):
            last = number
            yield Frame(medium, pixels, number, video.rate / stride, -(-video.total // stride))
    if last + stride <= _NEARLY * video.total:
        logger.warning("%s ends early: only the first %d of its %d frames can be read.", medium, last, video.total)


def read_image(file: str) -> Image:
    """The image in a file: BGR uint8 [H, W, 3], with the orientation of its metadata applied.

    Raises:
        ImageError, MediumError: it cannot be read; the message is the reason.
    """
    return _decoded(_content(file))


def _decoded(content: bytes) -> Image:
    with stderr_silenced():  # libpng and libjpeg print their own errors
        return decode_image(np.frombuffer(content, np.uint8))


def _content(file: str) -> bytes:
    try:
        # The bytes are read here, because OpenCV terminates the process if a name is not UTF-8.
        with open(file, "rb") as stream:  # noqa: PTH123
            return stream.read()
    except FileNotFoundError:
        raise MediumError("does not exist") from None
    except OSError as error:
        raise MediumError(f"cannot be read ({error.strerror or error})") from None


def _fetched(url: str, timeout: float) -> bytes | None:
    """The image behind a URL; None if it is a video or a stream.

    Raises:
        MediumError: there was no response in time, an error, or content that is not media.
    """
    try:
        with urllib.request.urlopen(_request(url), timeout=timeout) as answer:
            kind = answer.headers.get_content_type()
            suffix = PurePosixPath(unquote(urlsplit(url).path)).suffix.lower()
            if kind.startswith(_NOT_MEDIA):
                raise MediumError(f"is neither an image nor a video but {kind}")
            if suffix in VIDEOS or kind.startswith(("video/", "multipart/")):
                return None
            content: bytes = answer.read(_LARGEST + 1)
    except TimeoutError:
        raise MediumError(f"does not respond within {timeout:g} s") from None
    except urllib.error.HTTPError as error:
        raise MediumError(f"is refused by the server ({error.code} {error.reason})") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise MediumError(f"does not respond within {timeout:g} s") from None
        raise MediumError(f"cannot be fetched ({getattr(reason, 'strerror', None) or reason})") from None
    if len(content) > _LARGEST:
        raise MediumError(f"is larger than {_LARGEST >> 20} MiB")
    return content


def _request(url: str) -> urllib.request.Request:
    """The request for a URL; a user name and password in it are sent in the header instead."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), headers={"User-Agent": "secateur"})
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(unquote(login).encode()).decode())
    return request
