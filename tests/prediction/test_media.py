"""Reading: images, videos, addresses; what cannot be read is told with its reason."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bright_rectangles import FRAMES, RATE, RED, picture

from secateur.prediction.media import Frame, _request, read_media
from secateur.prediction.settings import ReadSettings
from secateur.prediction.sources import Medium, find_media


def read(words: Sequence[str], stdin: Sequence[str] = (), **settings: Any) -> tuple[list[Frame], list[str]]:
    """Frames, and the sentences for what could not be read."""
    skipped: list[str] = []
    media = find_media(words, stdin)
    frames = list(
        read_media(media, ReadSettings(**settings), lambda medium, reason: skipped.append(f"{medium}: {reason}"))
    )
    return frames, skipped


def test_the_frames_of_a_video(video: Path) -> None:
    frames, skipped = read([str(video)])
    assert not skipped
    assert [frame.number for frame in frames] == list(range(1, FRAMES + 1))
    assert {(frame.rate, frame.total, frame.pixels.shape) for frame in frames} == {(RATE, FRAMES, (96, 160, 3))}
    assert [frame.stem for frame in frames[:2]] == ["moving_1", "moving_2"]


def test_every_so_manieth_frame(video: Path) -> None:
    every, _ = read([str(video)])
    frames, _ = read([str(video)], vid_stride=5)
    assert [frame.number for frame in frames] == [1, 6, 11]
    assert frames[0].rate == pytest.approx(RATE / 5) and frames[0].total == 3
    for frame in frames:
        assert frame.number is not None
        assert (frame.pixels == every[frame.number - 1].pixels).all()


def test_what_cannot_be_read_does_not_stop_the_rest(
    tmp_path: Path, video: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "good.png"), picture(20, 30, (RED, (0, 0, 9, 9))))
    whole = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is no video. " * 100)
    names = ["half.png", "empty.jpg", "gone.jpg", "gone.mp4", "empty.mp4", "text.mp4", "good.png"]
    frames, skipped = read(["-"], [str(tmp_path / name) for name in names])
    assert [frame.stem for frame in frames] == ["good"]
    assert [line.removeprefix(f"{tmp_path}/") for line in skipped] == [
        "half.png: is not an image or is damaged",
        "empty.jpg: the file is empty (zero bytes)",
        "gone.jpg: does not exist",
        "gone.mp4: does not exist",
        "empty.mp4: the file is empty (zero bytes)",
        "text.mp4: is not a video, has no frames or is damaged",
    ]
    told = capfd.readouterr()
    assert told.out == "" and told.err == ""


def test_a_video_without_frames(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "none.mp4"
    cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 64)).release()
    assert file.stat().st_size
    frames, skipped = read([str(file)])
    assert frames == [] and skipped == [f"{file}: is not a video, has no frames or is damaged"]
    assert capfd.readouterr().err == ""


def test_a_video_that_breaks_off_is_told(
    tmp_path: Path, long_avi: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    content = long_avi.read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    frames, skipped = read([str(tmp_path / "cut.avi")])
    assert 5 < len(frames) < 15 and not skipped
    assert f"only the first {len(frames)} of its 20 frames" in caplog.text
    assert "VIDEOIO" not in capfd.readouterr().err


def test_names_that_are_not_utf_8(tmp_path: Path, video: Path) -> None:
    picture_file, video_file = (os.fsdecode(os.fsencode(tmp_path) + name) for name in (b"/\xe9.png", b"/\xe9.mp4"))
    Path(picture_file).write_bytes(cv2.imencode(".png", picture(20, 30))[1].tobytes())
    Path(video_file).write_bytes(video.read_bytes())
    frames, skipped = read(["-"], [picture_file, video_file])
    assert len(frames) == 1
    assert skipped == [f"{tmp_path}/\\udce9.mp4: has a name that is not UTF-8. Rename it"]


def test_a_password_goes_into_the_header() -> None:
    request = _request("http://me:let%20in@127.0.0.1:8/a.jpg?b=1")
    assert request.full_url == "http://127.0.0.1:8/a.jpg?b=1"
    assert request.get_header("Authorization") == "Basic " + base64.b64encode(b"me:let in").decode()
    _, skipped = read(["http://me:secret@127.0.0.1:9/a.jpg"])
    assert skipped == ["http://127.0.0.1:9/a.jpg: cannot be fetched (Connection refused)"]


def test_a_webcam_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    assert read(["77"]) == ([], ["webcam 77: does not exist or is in use"])
    assert capfd.readouterr().err == ""


def test_pictures_and_videos_behind_addresses(tmp_path: Path, server: str, video: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(20, 30, (RED, (0, 0, 9, 9))))
    (tmp_path / "moving.mp4").write_bytes(video.read_bytes())
    (tmp_path / "page.html").write_text("<html></html>")
    words = [f"http://{server}/{name}" for name in ("a.png?x=1", "moving.mp4", "page.html", "gone.jpg")]
    frames, skipped = read(words)
    assert [frame.number for frame in frames] == [None, *range(1, FRAMES + 1)]
    assert (frames[0].pixels == picture(20, 30, (RED, (0, 0, 9, 9)))).all()
    assert skipped == [
        f"http://{server}/page.html: is neither an image nor a video but text/html",
        f"http://{server}/gone.jpg: is refused by the server (404 File not found)",
    ]


@pytest.mark.parametrize("word", ["http://{}/a.jpg", "http://{}/a.mp4", "rtsp://{}/a"])
def test_an_address_that_does_not_answer(word: str, silent_server: str, capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    frames, skipped = read([word.format(silent_server)], timeout=0.5)
    assert time.monotonic() - start < 5
    assert frames == [] and len(skipped) == 1 and "does not respond within 0.5 s" in skipped[0]
    assert capfd.readouterr().err == ""


def test_one_picture_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(20, 30))
    opened: list[str] = []
    real = open
    monkeypatch.setattr("builtins.open", lambda file, *mode: (opened.append(str(file)), real(file, *mode))[1])
    frames = read_media(find_media([str(tmp_path)]), ReadSettings(), lambda *_: None)
    assert isinstance(next(iter(frames)).medium, Medium)
    assert opened == [str(tmp_path / "0.png")]
