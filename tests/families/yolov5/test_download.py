"""Fetching official weights: checked, atomic, and one sentence without a network."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from secateur.errors import UserError
from secateur.families.loading import load_checkpoint
from secateur.families.yolov5.formats import download
from secateur.families.yolov5.formats.download import fetch, is_official

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Address and pages of a local web server."""
    pages: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}", pages
    web.shutdown()
    web.server_close()


def publish(pages: dict[str, bytes], name: str, digest: str | None) -> None:
    """A release with one file."""
    pages[f"/ultralytics/yolov5/releases/download/v7.0/{name}"] = CONTENT
    assets = [{"name": "other.pt", "digest": "sha256:0"}, {"name": name, "digest": digest and f"sha256:{digest}"}]
    pages["/repos/ultralytics/yolov5/releases/tags/v7.0"] = json.dumps({"assets": assets}).encode()


def test_names() -> None:
    assert all(is_official(f"yolov5{s}{p}.pt") for s in "nsmlx" for p in ("", "6"))
    assert is_official("yolov3-tiny.pt")
    assert not is_official("best.pt")


def test_a_file_with_the_published_digest_is_kept(server: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    url, pages = server
    publish(pages, "yolov5s.pt", DIGEST)
    fetch(tmp_path / "yolov5s.pt", downloads=url, api=url)
    assert (tmp_path / "yolov5s.pt").read_bytes() == CONTENT


@pytest.mark.parametrize(("digest", "words"), [("0" * 64, "wrong checksum"), (None, "no checksum")])
def test_without_the_right_digest_nothing_is_kept(
    server: tuple[str, dict[str, bytes]], tmp_path: Path, digest: str | None, words: str
) -> None:
    url, pages = server
    publish(pages, "yolov5s.pt", digest)
    with pytest.raises(UserError, match=words):
        fetch(tmp_path / "yolov5s.pt", downloads=url, api=url)
    assert not list(tmp_path.iterdir())


def test_the_known_digest_needs_no_question(server: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    url, pages = server
    pages["/ultralytics/yolov5/releases/download/v6.1/yolov5n.pt"] = CONTENT
    with pytest.raises(UserError, match="wrong checksum"):
        fetch(tmp_path / "yolov5n.pt", downloads=url, api=url)


def test_missing_release_is_one_sentence(server: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    url, _ = server
    with pytest.raises(UserError, match="404"):
        fetch(tmp_path / "yolov5m.pt", downloads=url, api=url)


def test_no_network_says_where_to_put_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(download, "fetch", lambda path: fetch(path, downloads=nowhere, api=nowhere))
    monkeypatch.setattr("secateur.families.yolov5.family.fetch", download.fetch)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        load_checkpoint("yolov5s.pt")
    message = str(error.value)
    assert str(tmp_path / "yolov5s.pt") in message
    assert "yolov5s.pt yourself" in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir())


def test_the_reference_file_has_the_known_digest(reference_dir: Path) -> None:
    data = (reference_dir / "weights/yolov5n.pt").read_bytes()
    assert hashlib.sha256(data).hexdigest() == download.ASSETS["yolov5n.pt"].sha256
