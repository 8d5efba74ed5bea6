"""The YOLOv5 family, the reference implementation of a family."""

from __future__ import annotations

from secateur.families.family import FAMILIES
from secateur.families.yolov5.family import YOLOv5Family

FAMILIES.register(YOLOv5Family.kind)(YOLOv5Family())
