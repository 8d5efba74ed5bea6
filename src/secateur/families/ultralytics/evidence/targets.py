"""Targets of all tasks as one tensor, and in the form that the losses of the package read.

Detection: rows [T, 6] (image, class, centre x and y, width, height, normalised). Oriented boxes: [T, 7], with the angle
in radians appended. Poses: [T, 6 + 3 * K], with x, y (normalised) and visibility of every key point appended.
Segmentation: [T, 6 + h * w], with the mask of the object appended, 0 or 1, whose sides are those of the image divided
by the option mask_ratio. Classification: class ids [B].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

VALUES = 3
"""Values of a key point."""
_BOX = 6


def packed(task: str, batch: Mapping[str, Tensor]) -> Tensor:
    """Targets from a collated batch of the package, whose masks are maps [B, h, w] of object numbers from 1."""
    image = batch["batch_idx"].view(-1, 1).float()
    rows = torch.cat((image, batch["cls"].view(-1, 1).float(), batch["bboxes"].float()), 1)
    if task == "pose":
        return torch.cat((rows, batch["keypoints"].reshape(len(rows), -1).float()), 1)
    if task == "segment":
        places = rows[:, 0].long()
        masks = batch["masks"][places] == numbers_within(places)[:, None, None] + 1
        return torch.cat((rows, masks.flatten(1).float()), 1)
    return rows


def unpacked(task: str, targets: Tensor, images: Tensor, options: Any) -> dict[str, Tensor]:
    """A batch in the form that the criterion of the package reads.

    Args:
        targets: see the module docstring, [T, 6] and more columns, or class ids [B].
        images: [B, C, H, W].
        options: training options of the network: overlap_mask and mask_ratio are read.
    """
    if task == "classify":
        return {"img": images, "cls": targets.long()}
    boxes = targets[:, 2:7] if task == "obb" else targets[:, 2:_BOX]
    batch = {"img": images, "batch_idx": targets[:, 0], "cls": targets[:, 1], "bboxes": boxes}
    if task == "pose":
        batch["keypoints"] = targets[:, _BOX:].unflatten(1, (-1, VALUES))
    if task == "segment":
        sides = [side // options.mask_ratio for side in images.shape[2:]]
        masks = targets[:, _BOX:].reshape(len(targets), *sides)
        numbered = numbered_maps(targets[:, 0].long(), masks, len(images))
        classes = torch.cat((targets.new_zeros(1), targets[:, 1]))
        first = _first_rows(targets[:, 0].long(), len(images))
        places = torch.where(numbered > 0, numbered + first[:, None, None], 0)
        batch["sem_masks"] = classes[places]
        batch["masks"] = numbered.float() if options.overlap_mask else masks
    return batch


def numbered_maps(places: Tensor, masks: Tensor, images: int) -> Tensor:
    """Converts masks [T, h, w] of objects in images `places` [T] to int64 maps [B, h, w] of object numbers from 1 per
    image.

    Where objects overlap, the smallest one is used.
    """
    numbers, maps = numbers_within(places), masks.new_zeros((images, *masks.shape[1:]), dtype=torch.long)
    for row in masks.flatten(1).sum(1).argsort(descending=True, stable=True).tolist():
        maps[places[row]][masks[row] > 0] = numbers[row] + 1
    return maps


def numbers_within(places: Tensor) -> Tensor:
    """Index of every row among the rows of its image, from 0: int64 [T]. `places` [T] must be sorted by image."""
    return torch.arange(len(places), device=places.device) - torch.searchsorted(places, places)


def _first_rows(places: Tensor, images: int) -> Tensor:
    """Index of the first row of every image."""
    return torch.searchsorted(places, torch.arange(images, device=places.device))
