"""`secateur completion`: a script that completes commands and options in bash, zsh or fish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from secateur.commands import command

if TYPE_CHECKING:
    from secateur.commands.completing.words import Completed

Shell = Literal["bash", "zsh", "fish"]

_BASH = """\
# Completion of secateur in bash.
_secateur() {
    local word=${COMP_WORDS[COMP_CWORD]} words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="COMMANDS"
    else
        case ${COMP_WORDS[1]} in
CASES
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    # No command or option fits, so it is a file.
    [ "${#COMPREPLY[@]}" -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- "$word")
}
complete -o filenames -F _secateur secateur"""

_ZSH = """\
#compdef secateur
# Completion of secateur in zsh.
_secateur() {
    local -a words_of
    if (( CURRENT == 2 )); then
        words_of=(COMMANDS)
    else
        case ${words[2]} in
CASES
        esac
    fi
    compadd -- $words_of
    [[ ${words[CURRENT]} == -* ]] || (( CURRENT == 2 )) || _files
}
# zsh reads a file of fpath at the first completion, which must then be made.
if [[ ${funcstack[1]} == _secateur ]]; then _secateur "$@"; else compdef _secateur secateur; fi"""


@dataclass(frozen=True)
class CompletionOptions:
    """Print a script that completes commands and options in a shell."""

    shell: Positional[Shell]
    """Shell: bash, zsh or fish."""


@command("completion", "print a script that completes commands and options in bash, zsh or fish",
         lambda: CompletionOptions, order=130, computes=False, json=lambda options: False)  # fmt: skip
def completion(options: CompletionOptions) -> None:
    """Prints the script; writes nothing."""
    from secateur.commands.completing.words import completed

    print(SCRIPTS[options.shell](completed()))


def _script(text: str, case: str) -> Callable[[Sequence[Completed]], str]:
    """Fills in a script: the names of all commands, and a case for the words of each."""

    def filled(commands: Sequence[Completed]) -> str:
        cases = [case.format(name=entry.name, words=" ".join(entry.words)) for entry in commands]
        names = " ".join(entry.name for entry in commands)
        return text.replace("COMMANDS", names).replace("CASES", "\n".join(cases))

    return filled


def _fish(commands: Sequence[Completed]) -> str:
    lines = ["# Completion of secateur in fish."]
    for entry in commands:
        summary = entry.summary.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"complete -c secateur -f -n __fish_use_subcommand -a {entry.name} -d '{summary}'")
        inside = f"-n '__fish_seen_subcommand_from {entry.name}'"
        for word in entry.words:
            lines.append(f"complete -c secateur {inside} {f'-l {word[2:]}' if word.startswith('--') else f'-a {word}'}")
    return "\n".join(lines)


SCRIPTS: dict[Shell, Callable[[Sequence[Completed]], str]] = {
    "bash": _script(_BASH, '            {name}) words="{words}" ;;'),
    "zsh": _script(_ZSH, "            {name}) words_of=({words}) ;;"),
    "fish": _fish,
}
