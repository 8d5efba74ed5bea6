"""Training hyper-parameters under YOLOv5's names: the ready-made sets beside this file, and the reader of others."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from secateur.errors import UserError, shown
from secateur.files import usable_path
from secateur.yaml_files import read_yaml

FOLDER = Path(__file__).with_name("hyp")
PROBABILITIES = ("flipud", "fliplr", "mosaic", "mixup", "copy_paste", "label_smoothing", "hsv_h", "hsv_s", "hsv_v")
BELOW_ONE = ("momentum", "warmup_momentum", "label_smoothing")
POSITIVE = ("lr0", "cls_pw", "obj_pw")


@dataclass(frozen=True)
class Hyp:
    """One set of hyper-parameters; the defaults are those of `scratch-low`.

    Raises:
        UserError: a value out of its range, named by its key.
    """

    lr0: float = 0.01  # learning rate of the first epoch
    lrf: float = 0.01  # learning rate of the last epoch, as a share of lr0
    momentum: float = 0.937  # SGD momentum, Adam's beta1
    weight_decay: float = 0.0005  # for 64 images a step
    warmup_epochs: float = 3.0
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1  # where the biases' learning rate starts
    box: float = 0.05  # loss gains, for 3 levels, 80 classes, 640 pixels
    cls: float = 0.5
    cls_pw: float = 1.0  # weight of positives in the class and objectness losses
    obj: float = 1.0
    obj_pw: float = 1.0
    iou_t: float = 0.2  # accepted for YOLOv5's files; its loss does not read it either
    anchor_t: float = 4.0  # a box goes to anchors within this ratio in width and height
    fl_gamma: float = 0.0  # focal loss exponent; 0 is plain cross-entropy
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.0
    copy_paste: float = 0.0
    label_smoothing: float = 0.0
    anchors: float = 0.0  # anchors per level to compute for a detector built anew from a YAML; 0: what the YAML says

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf"):
                raise UserError(f"Hyper-parameter {field.name} is {value}; it must be a number of at least 0.")
        for key in PROBABILITIES:
            if getattr(self, key) > 1:
                raise UserError(f"Hyper-parameter {key} is {getattr(self, key)}; it must lie in 0..1.")
        for key in BELOW_ONE:
            if getattr(self, key) >= 1:
                raise UserError(f"Hyper-parameter {key} is {getattr(self, key)}; it must lie below 1.")
        for key in POSITIVE:
            if getattr(self, key) == 0:
                raise UserError(f"Hyper-parameter {key} is 0; it must be positive.")
        if self.anchor_t <= 1:
            raise UserError(f"Hyper-parameter anchor_t is {self.anchor_t}; it is a ratio and must be above 1.")

    def to_dict(self) -> dict[str, float]:
        """Plain data, for checkpoints and for the augmentation."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def load_hyp(name_or_path: str | Path) -> Hyp:
    """Reads a ready-made set (`scratch-low`, `scratch-med`, `scratch-high`, `finetune`) or a YAML file of these keys.

    YOLOv5's own names of the sets (`hyp.scratch-low.yaml`) are understood too. Keys that are left out keep the value
    of `scratch-low`.

    Raises:
        UserError: no such file, not a mapping, an unknown key, a value that is no number or out of range.
    """
    path = usable_path(name_or_path)
    if not path.is_file():
        short = path.name.removeprefix("hyp.").removesuffix(".yaml").removesuffix(".yml")
        ready = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        if short not in ready or path.parent != Path():
            raise UserError(f"There is no hyper-parameter file {path}; give a YAML file or one of {', '.join(ready)}.")
        path = FOLDER / f"{short}.yaml"
    return _from_mapping(read_yaml(path, "hyper-parameter file"), path)


def _from_mapping(data: Any, path: Path) -> Hyp:
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no hyper-parameters: it must be a mapping such as `lr0: 0.01`, one key a line.")
    known = [field.name for field in fields(Hyp)]
    values: dict[str, float] = {}
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(str(key)[:100], known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(known[:8])} and others."
            raise UserError(f"{path}: unknown hyper-parameter {shown(key)}; {hint}")
        values[key] = _number(value, key, path)
    try:
        return Hyp(**values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _number(value: Any, key: str, path: Path) -> float:
    # YAML 1.1 reads 1e-3 (no dot) as text; users mean the number.
    if not isinstance(value, bool) and isinstance(value, (int, float, str)):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise UserError(f"{path}: hyper-parameter {key} is {shown(value)}; it must be a number.")
