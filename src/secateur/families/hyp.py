"""Files of hyper-parameters: a flat YAML with the keys of every training and of the families."""

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
    """Reads a built-in set (`scratch-low`, `scratch-med`, `scratch-high`, `finetune`) or a YAML file with these keys.

    The YOLOv5 names of these sets (`hyp.scratch-low.yaml`) are accepted too. Missing keys have the value of
    `scratch-low`. Keys of a family other than that of the network are ignored.

    Raises:
        UserError: the file does not exist or is not a mapping, a key is unknown, or a value is not a number or out of
            range.
    """
    path = usable_path(name_or_path)
    if not path.is_file():
        short = path.name.removeprefix("hyp.").removesuffix(".yaml").removesuffix(".yml")
        ready = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        if short not in ready or path.parent != Path():
            raise UserError(
                f"The hyper-parameter file {path} does not exist. Set a YAML file or one of: {', '.join(ready)}."
            )
        path = FOLDER / f"{short}.yaml"
    return _from_mapping(read_yaml(path, "hyper-parameter file"), path)


def _from_mapping(data: Any, path: Path) -> Hyp:
    if not isinstance(data, dict):
        raise UserError(
            f"{path} is not a hyper-parameter file. It must be a YAML mapping, one key per line, such as `lr0: 0.01`."
        )
    kinds = list(dict.fromkeys(family.hyp for family in FAMILIES.values()))
    known = list(dict.fromkeys([*NAMES, *(entry.name for kind in kinds for entry in fields(kind))]))
    values: dict[str, float] = {}
    for key, value in data.items():
        if key not in known:
            near = difflib.get_close_matches(str(key)[:100], known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Valid keys are {', '.join(known[:8])} and others."
            raise UserError(f"{path}: unknown hyper-parameter {shown(key)}. {hint}")
        values[key] = _number(value, key, path)
    own = {key: value for key, value in values.items() if key not in NAMES}
    try:
        hyp = Hyp(own=own, **{key: value for key, value in values.items() if key in NAMES})
        _check_own(hyp, kinds)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return hyp


def _check_own(hyp: Hyp, kinds: list[type[Any]]) -> None:
    """Checks values against all families, because the family of the network is not known yet."""
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
    # YAML 1.1 reads 1e-3 (without a dot) as text.
    if not isinstance(value, bool) and isinstance(value, (int, float, str)):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise UserError(f"{path}: hyper-parameter {key} is {shown(value)}, but must be a number.")
