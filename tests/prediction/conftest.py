"""Media for the tests of predictions: a drawn video, a web server, a server that never answers."""

from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from bright_rectangles import FRAMES, RATE, RED, picture, place


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red rectangle that moves to the right, 160 x 96 pixels."""
    file = tmp_path_factory.mktemp("video") / "moving.mp4"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), RATE, (160, 96))
    for number in range(1, FRAMES + 1):
        writer.write(picture(96, 160, (RED, place(number))))
    writer.release()
    return file


@pytest.fixture(scope="session")
def long_avi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames of noise as motion JPEG: a file that can be cut anywhere."""
    file = tmp_path_factory.mktemp("video") / "noise.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(20):
        writer.write(np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    return file


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a web server over the folder of the test."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(tmp_path))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
