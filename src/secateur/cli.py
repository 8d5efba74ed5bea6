"""The command line: reads options, calls one verb, prints; bad input is one sentence on stderr and exit code 2."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from secateur.errors import UserError

COMMANDS: dict[str, str] = {
    "demo": "generate a data set and take a small detector through the whole run: needs nothing else",
    "run": "a recipe in one resumable run: evaluate, sparsify, prune, repair, fine-tune, export",
    "train": "train a detector from weights or from scratch",
    "sparsify": "train with a penalty that drives dispensable channels to zero",
    "prune": "remove layers, cut channels down to a budget, or zero weights; with repair and evaluation",
    "finetune": "train a pruned detector (same as train; its shapes and its zeros are kept)",
    "sweep": "the table of pruning ratio against accuracy, parameters and FLOPs",
    "val": "evaluate: P, R, mAP50, mAP50-95, per class, COCO table, speed",
    "info": "summary of a checkpoint: layers, parameters, GFLOPs, sparsity, history",
    "export": "write an ONNX file and check its outputs",
    "bench": "measure checkpoints side by side on this machine",
    "recipes": "list the recipes of `secateur run`",
    "data": "check, convert (coco, voc) or generate data sets",
}

# What the fingers of YOLOv5's users type, and our name for it.
SYNONYMS = {
    "--img": "--image-size",
    "--imgsz": "--image-size",
    "--img-size": "--image-size",
    "--batch": "--batch-size",
    "--conf-thres": "--conf",
    "--iou-thres": "--iou",
    "--cos": "--cos-lr",
    "--model": "--weights",
    "--sr": "--rate",
    "--dist-loss": "--distill",
}


def usage() -> str:
    """The text of `secateur --help`."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: secateur COMMAND [options]        (secateur COMMAND --help shows the options)",
            "",
            "Makes trained YOLO detectors smaller and faster and keeps their accuracy.",
            "",
            *lines,
            "",
            "  secateur run --weights best.pt --data data.yaml --flops 0.5",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `secateur` command; exits with 0, 1 (interrupted) or 2 (bad input)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(usage())
        return
    if arguments[0] in {"-V", "--version", "version"}:
        from importlib.metadata import version

        print(f"secateur {version('secateur')}")
        return
    command, rest = arguments[0], arguments[1:]
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("secateur").setLevel(logging.INFO)
    try:
        if command not in COMMANDS:
            raise UserError(f"Unknown command '{command}'; choose one of {', '.join(COMMANDS)}.")
        _dispatch(command, rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        raise SystemExit(1) from None


def rewrite(arguments: Sequence[str], positional: str = "") -> list[str]:
    """Arguments with YOLOv5's flags under our names, a bare --resume completed, a first bare word as `positional`."""
    words = []
    for position, word in enumerate(arguments):
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("_", "-")
            words.append(SYNONYMS.get(flag, flag) + equals + value)
            following = arguments[position + 1] if position + 1 < len(arguments) else "--"
            if flag == "--resume" and not equals and following.startswith("--"):
                words.append("latest")
        elif position == 0 and positional:
            words += [positional, word]
        else:
            words.append(word)
    return words


def _parse(kind: type[Any], command: str, arguments: Sequence[str], positional: str = "") -> Any:
    import tyro

    return tyro.cli(
        kind,
        args=rewrite(arguments, positional),
        prog=f"secateur {command}",
        config=(tyro.conf.OmitArgPrefixes,),
    )


def _dispatch(command: str, arguments: list[str]) -> None:
    """Calls the verb; each imports what it needs, so that help stays fast."""
    if command == "recipes":
        _recipes()
        return
    if command == "data":
        from secateur.stages.datasets import data_command

        data_command(arguments)
        return
    if command == "info":
        _info(arguments)
        return
    if command == "bench":
        _bench(arguments)
        return
    kind, verb = _verb(command)
    parsed = _parse(kind, command, arguments)
    _report(verb(), parsed, parsed.place.json)


def _verb(command: str) -> tuple[type[Any], Callable[[], Callable[[Any], dict[str, Any]]]]:
    """The options of a command, and how to get at its verb without importing it before they are read."""
    from importlib import import_module

    from secateur.stages import options, sweep_options

    kinds: dict[str, tuple[type[Any], str]] = {
        "demo": (options.DemoOptions, "commands"),
        "run": (options.RunOptions, "commands"),
        "train": (options.TrainOptions, "commands"),
        "finetune": (options.TrainOptions, "commands"),
        "sparsify": (options.SparsifyOptions, "commands"),
        "prune": (options.PruneOptions, "prune_command"),
        "sweep": (sweep_options.SweepOptions, "sweep"),
        "val": (options.ValOptions, "measure_commands"),
        "export": (options.ExportOptions, "measure_commands"),
    }
    kind, module = kinds[command]
    return kind, lambda: getattr(import_module(f"secateur.stages.{module}"), command)


def _report(verb: Callable[[Any], dict[str, Any]], options: Any, as_json: bool) -> None:
    """Runs a verb; with --json its printing goes to stderr and the summary alone to stdout."""
    import contextlib
    import json

    if not as_json:
        verb(options)
        return
    with contextlib.redirect_stdout(sys.stderr):
        summary = verb(options)
    print(json.dumps(summary, indent=2))


def _files(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Leading bare words (files) and the rest."""
    count = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    return list(arguments[:count]), list(arguments[count:])


def _info(arguments: Sequence[str]) -> None:
    from secateur.stages.options import InfoOptions

    files, rest = _files(arguments)
    options = _parse(InfoOptions, "info FILE", rest)
    if len(files) != 1:
        raise UserError("secateur info needs one file: secateur info best.pt [--layers] [--json].")
    from secateur.stages import measure_commands

    _report(lambda chosen: measure_commands.info(files[0], chosen), options, options.json)


def _bench(arguments: Sequence[str]) -> None:
    from secateur.stages.options import BenchOptions

    files, rest = _files(arguments)
    options = _parse(BenchOptions, "bench FILE [FILE ...]", rest)
    if not files:
        raise UserError("secateur bench needs checkpoints: secateur bench dense.pt cut.safetensors.")
    from secateur.stages import measure_commands

    _report(lambda chosen: measure_commands.bench(files, chosen), options, options.place.json)


def _recipes() -> None:
    from secateur.stages.recipe import available

    for recipe in available():
        print(f"{recipe.name:<16} {recipe.summary} [{recipe.source}]")
