"""Command-line entry point: finds the command, parses its options and calls it. Bad input prints one message and exits
with code 2.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from secateur.commands import COMMANDS, Command
from secateur.errors import Interrupted, PartlyDoneError, UserError, shown
from secateur.flags import understood
from secateur.machine import use_threads
from secateur.ranges import check_ranges

ALL = "--help-all"
LONGEST = 300
"""Longest error message in characters."""


def usage() -> str:
    """The text of `secateur --help`."""
    commands = sorted(COMMANDS.values(), key=lambda entry: entry.order)
    width = max(len(entry.name) for entry in commands)
    return "\n".join(
        [
            "usage: secateur COMMAND [options]        (secateur COMMAND --help: common options; --help-all: "
            "all options)",
            "",
            "Makes trained YOLO detectors smaller and faster and keeps their accuracy.",
            "",
            *(f"  {entry.name:<{width}}  {entry.summary}" for entry in commands),
            "",
            "  secateur run --weights best.pt --data data.yaml --flops 0.5",
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `secateur` command. Exits with 0, 1 (interrupted, or completed in part) or 2 (bad input)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _answer(arguments)
    except UserError as error:
        print(f"error: {_short(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except PartlyDoneError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:
        # The reader of the output (head, for example) has closed the pipe; suppress the error at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt as interruption:
        print(_how_to_go_on(arguments, interruption), file=sys.stderr)
        raise SystemExit(1) from None


def _short(sentence: str) -> str:
    """One line of at most 300 characters, because values from files and options can have any length."""
    text = " ".join(sentence.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 105]} ... {text[-100:]}"


def _answer(arguments: list[str]) -> None:
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(usage())
        return
    if arguments[0] in {"-V", "--version", "version"}:
        from secateur import __version__

        print(f"secateur {__version__}")
        return
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise UserError(f"Unknown command {shown(name)}; choose one of {', '.join(_names())}.")
    _call(COMMANDS[name], rest)


def _names() -> list[str]:
    return [entry.name for entry in sorted(COMMANDS.values(), key=lambda entry: entry.order)]


def parsed(command: Command, arguments: Sequence[str]) -> Any:
    """Parses the options of a command. Flags of YOLOv5 and its forks are translated first.

    Raises:
        UserError: an argument cannot be parsed, or a YOLOv5 flag is not supported.
    """
    if {"-h", "--help", ALL} & set(arguments):
        _print_help(command, arguments)
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            options = _read(command, command.options(), understood(command.name, arguments))
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise UserError(f"{_sentence(told.getvalue())} See secateur {command.name} --help.") from None
    check_ranges(options)
    return options


def _read(command: Command, kind: Any, words: Sequence[str]) -> Any:
    import tyro

    config = (tyro.conf.OmitArgPrefixes,)
    return tyro.cli(kind, args=words, prog=f"secateur {command.name}", config=config)


def _print_help(command: Command, arguments: Sequence[str]) -> NoReturn:
    """Prints the help of a command, or of the subcommand before --help, and exits."""
    from secateur.commands.help import options_shown, shown

    everything = ALL in arguments
    # Other options do not change the help, but a subcommand of `secateur data` does.
    words = [*itertools.takewhile(lambda word: not word.startswith("-"), arguments), "--help"]
    kind = shown(command.options(), everything=everything)
    try:
        _read(command, kind, words)
    finally:
        more = options_shown(command.options()) - options_shown(kind)
        if more:
            print(f"{more} more option{'s' if more > 1 else ''}: secateur {command.name} {ALL}")
    raise SystemExit(0)


def _sentence(box: str) -> str:
    """The message in an error box of tyro, up to its first rule, as one sentence. The title may be followed by a
    rule.
    """
    lines = [line.strip("│| ") for line in box.splitlines()[1:]]
    parts = [list(part) for rule, part in itertools.groupby(lines, lambda line: not line.strip("─-")) if not rule]
    text = " ".join(parts[0]) if parts else "Cannot read the options"
    return text if text.endswith(".") else f"{text}."


def _call(command: Command, arguments: Sequence[str]) -> None:
    """Runs a command. With --json, its output goes to stderr and only the summary to stdout."""
    from secateur.terminal import OnTerminal, is_first_process, quiet_unless_first

    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[OnTerminal()])
    logging.getLogger("secateur").setLevel(logging.INFO)
    options = parsed(command, arguments)
    quiet_unless_first()
    if command.computes:
        use_threads()
    if not command.json(options):
        command.run(options)
        return
    partly: PartlyDoneError | None = None
    with contextlib.redirect_stdout(sys.stderr if is_first_process() else sys.stdout):
        try:
            summary = command.run(options)
        except PartlyDoneError as error:
            summary, partly = error.summary, error
    print(json.dumps(summary, indent=2))
    if partly is not None:
        raise partly


def _how_to_go_on(arguments: Sequence[str], interruption: KeyboardInterrupt) -> str:
    """The command line that resumes after an interruption."""
    line = shlex.join(["secateur", *arguments])
    if isinstance(interruption, Interrupted):
        return f"Interrupted. Resume with:  {interruption.line}"
    if arguments and arguments[0] in COMMANDS and COMMANDS[arguments[0]].continues:
        return f"Interrupted. Run the same command to resume:  {line}"
    return f"Interrupted. No progress was saved; run the command again:  {line}"
