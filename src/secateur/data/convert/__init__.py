"""Converts COCO JSON and VOC XML annotations to a YOLO data set: images, labels and a data.yaml."""

from secateur.data.convert.coco import coco_to_yolo
from secateur.data.convert.voc import voc_to_yolo
from secateur.data.convert.writing import Converted

__all__ = ["Converted", "coco_to_yolo", "voc_to_yolo"]
