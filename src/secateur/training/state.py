"""State of a training for resuming: one file, written atomically, that holds only tensors and plain data."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateur.errors import UserError
from secateur.files import atomic_write
from secateur.networks.classes import changed_class
from secateur.networks.formats.pickled import read_plain

STATE_FILE = "state.pt"
FORMAT = 1


@dataclass(frozen=True)
class TrainingIdentity:
    """Data and classes of a training, which must not change when it is resumed.

    Attributes:
        names: class id -> name, of the trained detector.
        data: description of each data set -> a digest of its content, independent of its location.
        start: class id -> name, of the initial checkpoint; states without classes are from this checkpoint.
    """

    names: Mapping[int, str]
    data: Mapping[str, str]
    start: Mapping[int, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for the state."""
        return {"names": dict(self.names), "data": dict(self.data)}

    def check(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Compares it with a saved state.

        Raises:
            UserError: something has changed; the message names it.
        """
        saved = state.get("subject", {"names": self.start, "data": {}})
        # States of earlier versions have no digests, so they are not checked.
        other = [words for words, digest in self.data.items() if saved["data"].get(words, digest) != digest]
        changes = [change for change in (changed_class(saved["names"], self.names),) if change]
        changes += [f"{' and '.join(other)} changed since"] if other else []
        if changes:
            raise UserError(
                f"Cannot resume in {folder}: {', and '.join(changes)}. Restore that, or start a new training."
            )


def has_state(folder: str | Path) -> bool:
    """Whether a training in this run folder can be resumed (or has finished)."""
    return (Path(folder) / STATE_FILE).is_file()


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state; the previous one is kept until the new one is complete.

    Raises:
        UserError: the disk is full, or the folder is not writable.
    """
    with atomic_write(folder / STATE_FILE) as temporary:
        try:
            torch.save({"format": FORMAT} | state, temporary)
        except RuntimeError as error:  # torch reports a full disk in this way
            raise OSError(f"torch could not write the state ({error})") from error


def read_state(folder: Path) -> dict[str, Any]:
    """Reads the state as data: nothing in the file is executed, and memory use is proportional to the file size.

    Raises:
        UserError: there is no state, or the file is not a training state.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise UserError(
            f"There is no training to resume in {folder}: {STATE_FILE} is missing. Start a training without resume."
        )
    try:
        state = read_plain(path)
    except UserError as error:
        raise UserError(f"{path} is not a training state, or is damaged. Start a new training.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is not a training state of this version. Start a new training.")
    return state


def random_state() -> dict[str, Any]:
    """State of all random generators of this process: Python, NumPy, torch, CUDA."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores the output of `random_state`."""
    random.setstate(state["python"])
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    # A training can be resumed on a machine with fewer GPUs.
    for number, own in enumerate(state["cuda"][: torch.cuda.device_count() if torch.cuda.is_available() else 0]):
        torch.cuda.set_rng_state(own, number)


@contextmanager
def sealed_randomness() -> Iterator[None]:
    """Restores the CPU generator of torch on exit, so that loading and evaluation do not affect the training."""
    before = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(before)
