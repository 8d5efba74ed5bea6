"""The folders of the modules beside the tests."""

from __future__ import annotations

import sys
from pathlib import Path

# The stock-like files are made as the tests of the detector make theirs.
sys.path.append(str(Path(__file__).resolve().parents[1] / "families" / "yolov5"))
