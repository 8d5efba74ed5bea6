"""How to reproduce the run: command, data, settings, versions, machine, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.report.page import wording as say
from secateur.report.page.blocks import Block, Heading, Lines, Pairs, Section
from secateur.report.page.model import ABOUT, RunData

_MOST_FILES = 40
_ENDINGS = {".safetensors", ".onnx", ".pt", ".xml", ".tflite", ".pte", ".param", ".csv", ".json", ".md", ".log", ".txt"}


def settings(runs: Sequence[RunData]) -> Section:
    """Everything needed to reproduce the run."""
    blocks: list[Block] = []
    for run in runs:
        blocks += [Heading(run.label)] if len(runs) > 1 else []
        blocks += _of(run)
    return Section("settings", "How to reproduce", blocks=blocks)


def _of(run: RunData) -> list[Block]:
    about = run.about
    blocks: list[Block] = []
    if about.get("line"):
        blocks.append(Lines([str(about["line"])], code=True, label="Command line"))
    steps = [str(step["words"]) for step in about.get("steps") or []]
    general = [("Folder", str(run.folder)), ("Steps", ", ".join(steps)), *_data(run), *_times(run)]
    blocks.append(Pairs("Run", [(name, value) for name, value in general if value]))
    for title, key in (("Machine", "machine"), ("Versions", "versions")):
        if about.get(key):
            blocks.append(Pairs(title, [(name, _words(value)) for name, value in about[key].items()], short=True))
    chosen = about.get("settings") or {}
    if chosen:
        blocks.append(Pairs("Settings", sorted(_flat(chosen)), folded=True, short=True))
    if not about:
        line = f"This run is from an earlier version, without {ABOUT} (command, versions and machine)."
        blocks.append(Lines([line]))
    warnings = warnings_of(run)
    if warnings:
        blocks.append(Lines(warnings, label="Warnings and notes of the run"))
    files = files_of(run)
    if files:
        blocks.append(Pairs("Files", files, folded=True, short=True))
    return blocks


def _data(run: RunData) -> list[tuple[str, str]]:
    data = run.data
    if not data:
        return []
    splits = ", ".join(f"{count:,} {name}" for name, count in (data.get("splits") or {}).items())
    names = list(data.get("classes") or [])
    listed = ", ".join(map(str, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return [
        ("Data set", str(data.get("file", ""))),
        ("Images", splits),
        ("Classes", f"{len(names)}: {listed}" if names else ""),
    ]


def _times(run: RunData) -> list[tuple[str, str]]:
    begun = run.about.get("begun") or []
    ended = str(run.about.get("ended") or "")
    starts = f" ({len(begun)} starts)" if len(begun) > 1 else ""
    return [("Begun", f"{begun[0]}{starts}" if begun else ""), ("Ended", ended)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", _words(value)))
    return pairs


def _words(value: Any) -> str:
    if value is None:
        return say.MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(_words, value)) if isinstance(value, list) else str(value)


def warnings_of(run: RunData) -> list[str]:
    """Warnings in the log, and notes of the plans."""
    lines: list[str] = []
    for note in run.notes.values():
        if isinstance(note, dict):
            lines += [str(line) for line in note.get("notes") or []]
    log = run.folder / "run.log"
    if log.is_file():
        text = log.read_text(encoding="utf-8", errors="replace")
        lines += [line.partition(" warning: ")[2] for line in text.splitlines() if " warning: " in line[:40]]
    return list(dict.fromkeys(lines))


def files_of(run: RunData) -> list[tuple[str, str]]:
    """Files in the run's folder that are useful to the user, with their sizes."""
    files = sorted(file for file in run.folder.iterdir() if file.is_file() and file.suffix in _ENDINGS)
    shown = [(file.name, _size(file.stat().st_size)) for file in files[:_MOST_FILES]]
    return shown + ([(f"and {len(files) - _MOST_FILES} more", "")] if len(files) > _MOST_FILES else [])


def _size(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
