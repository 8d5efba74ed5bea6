"""Shows images in a window, where OpenCV and the machine have any."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import cv2

from secateur.data.images import Image
from secateur.errors import UserError
from secateur.terminal import stderr_silenced


def window() -> Callable[[Image], None]:
    """What shows drawn frames as they come.

    Raises:
        UserError: this OpenCV, or this machine, has no windows.
    """
    answer = UserError("--view cannot show windows here (opencv-python-headless, or no display); leave it out.")
    # An OpenCV with windows ends the process where there is no display.
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise answer
    try:
        with stderr_silenced():
            cv2.namedWindow("secateur", cv2.WINDOW_NORMAL)
    except cv2.error:
        raise answer from None

    def show(drawn: Image) -> None:
        cv2.imshow("secateur", drawn)
        cv2.waitKey(1)

    return show
