"""Files of hyper-parameters: one flat YAML whose keys are those of every training and those that a family declares."""

from __future__ import annotations

import difflib
from dataclasses import fields
from pathlib import Path
from typing import Any

from secateur.errors import UserError, shown
from secateur.families.family import FAMILIES
from secateur.files import usable_path
from secateur.training.hyp import FOLDER, NAMES, Hyp
from secateur.yaml_files import read_yaml


def load_hyp(name_or_path: str | Path) -> Hyp:
    """Reads a ready-made set (`scratch-low`, `scratch-med`, `scratch-high`, `finetune`) or a YAML file of these keys.

    YOLOv5's own names of the sets (`hyp.scratch-low.yaml`) are understood too. Keys that are left out keep the value
    of `scratch-low`. A key of another family than the network's is ignored.

    Raises:
        UserError: no such file, not a mapping, a key that no family knows, a value that is no number or out of range.
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
    kinds = list(dict.fromkeys(family.hyp for family in FAMILIES.values()))
    known = list(dict.fromkeys([*NAMES, *(entry.name for kind in kinds for entry in fields(kind))]))
    values: dict[str, float] = {}
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(str(key)[:100], known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(known[:8])} and others."
            raise UserError(f"{path}: unknown hyper-parameter {shown(key)}; {hint}")
        values[key] = _number(value, key, path)
    own = {key: value for key, value in values.items() if key not in NAMES}
    try:
        hyp = Hyp(own=own, **{key: value for key, value in values.items() if key in NAMES})
        _check_own(hyp, kinds)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return hyp


def _check_own(hyp: Hyp, kinds: list[type[Any]]) -> None:
    """Refuses values that no family takes: which one the network is of is not known yet."""
    errors = []
    for kind in kinds:
        if any(entry.name in hyp.own for entry in fields(kind)):
            try:
                hyp.read(kind)
                return
            except UserError as error:
                errors.append(error)
    if errors:
        raise errors[0]


def _number(value: Any, key: str, path: Path) -> float:
    # YAML 1.1 reads 1e-3 (no dot) as text; users mean the number.
    if not isinstance(value, bool) and isinstance(value, (int, float, str)):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise UserError(f"{path}: hyper-parameter {key} is {shown(value)}; it must be a number.")
