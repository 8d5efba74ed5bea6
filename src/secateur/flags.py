"""Flags of YOLOv5 and of other pruning tools: most are synonyms of options, the others get an error with advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from secateur.errors import UserError
from secateur.pruning.settings import FORMER_NAMES
from secateur.runs.options import CONTROL_WORDS
from secateur.sizes import read_size, square_as_one
from secateur.sparsity.settings import REMOVED
from secateur.training.own_options import declared

# Synonyms: flag -> option. Aliases that the help already lists are not repeated here.
RENAMED: Mapping[str, str] = {
    "--img": "--image-size",
    "--imgsz": "--image-size",
    "--img-size": "--image-size",
    "--batch": "--batch-size",
    "--conf-thres": "--conf",
    "--iou-thres": "--iou",
    "--cos": "--cos-lr",
    "--model": "--weights",
    "--sr": "--rate",
    "--bn-sparsity": "--rate",
    "--sparsity-rate": "--rate",
    "--dist-loss": "--distill",
    "--temperature": "--distill-temperature",
    "--teacher-weights": "--teacher",
    "--include": "--format",
    **{f"--{former.replace('_', '-')}": f"--{ours.replace('_', '-')}" for former, ours in FORMER_NAMES.items()},
}
# Switches that correspond to an option with a value.
SPELT_OUT: Mapping[str, tuple[str, ...]] = {"--noval": ("--val-every", "0"), "--adam": ("--optimizer", "Adam")}
# Flags with a meaning in one command only.
_DETECT: Mapping[str, tuple[str, ...]] = {
    "--half": ("--precision", "fp16"),
    "--nosave": ("--no-save",),
    "--view-img": ("--view",),
    "--agnostic-nms": ("--agnostic",),
}
SPELT_OUT_IN: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "val": {"--half": ("--precision", "fp16"), "--noplots": ("--no-plots",)},
    "bench": {"--half": ("--precision", "fp16")},
    "compare": {"--verbose": ("--per-class",)},
    "export": {"--half": ("--precision", "fp16"), "--int8": ("--precision", "int8")},
    "predict": _DETECT,
    "detect": _DETECT,
}
# Options with a value that can also be written as --OPTION or --no-OPTION, by command.
SWITCHES: Mapping[str, Mapping[str, Sequence[str]]] = {"run": {"--control": tuple(CONTROL_WORDS)}}
# Options whose YOLOv5 counterpart takes several words; here the words are joined by commas.
JOINED: Mapping[str, str] = {"export": "--format"}
# Flags without a counterpart, each with what to do instead.
ANSWERS: Mapping[str, str] = {
    "--do-prune": "to zero weights during training, set a target: secateur finetune --target-sparsity 0.8",
    "--prune": "pruning is a separate command: secateur prune --weights best.pt --flops 0.5",
    "--st": "sparse training is a separate command: secateur sparsify --weights best.pt --data data.yaml",
    "--ft-pruned-model": "a pruned checkpoint is trained like any other: secateur finetune --weights cut.safetensors",
    "--cache": "images are cached in memory automatically if they fit; remove the flag",
    "--cache-images": "images are cached in memory automatically if they fit; remove the flag",
    "--exist-ok": "runs are never overwritten, they go to exp, exp2, ...; choose a folder with --name",
    "--save-period": "the resumable state is saved every epoch; --save-every-steps saves it more often",
    "--nosave": "best and last are always saved; remove the flag",
    "--evolve": "hyper-parameter evolution is not supported; give a hyper-parameter file with --hyp",
    "--image-weights": "weighted image sampling is not supported; remove the flag",
    "--quad": "the quad loader is not supported; remove the flag",
    "--local-rank": "torchrun sets the rank of each process; remove the flag",
    "--notest": "use --val-every 0 to evaluate only the last epoch",
    "--augment": "test-time augmentation is not supported; remove the flag",
    "--half": "mixed precision is set with --amp in a training and with --precision in secateur val and bench",
    "--noplots": "plots are drawn if matplotlib is installed; remove the flag",
    "--verbose": "the table of all classes is always printed; remove the flag",
}
_NOT_IN_DETECT: Mapping[str, str] = {
    "--visualize": "feature maps cannot be plotted; remove the flag",
    "--update": "prediction never changes weights; remove the flag",
    "--dnn": "ONNX files run in ONNX Runtime; remove the flag",
    "--data": "the class names are stored in the checkpoint; remove the flag",
    "--save-csv": "use --save-json, which writes one JSON line per image",
}
# Options of earlier versions that were removed.
GONE: Mapping[str, str] = {f"--{name.replace('_', '-')}": text for name, (_, text) in REMOVED.items()}
# Advice that applies to one command only.
OF_COMMAND: Mapping[str, Mapping[str, str]] = {
    "predict": _NOT_IN_DETECT,
    "detect": _NOT_IN_DETECT,
    "prune": {"--cfg": "the network is stored in the checkpoint; remove the flag"},
    "finetune": {"--cfg": "the network is stored in the checkpoint; remove the flag"},
    "sparsify": {"--cfg": "the network is stored in the checkpoint; remove the flag"},
}
# Commands that support only square images, and why.
SQUARES: Mapping[str, str] = {
    **dict.fromkeys(("train", "sparsify", "finetune"), "training images are square"),
    **dict.fromkeys(("prune", "sweep", "pareto"), "images are letterboxed to a square for scoring"),
    **dict.fromkeys(("heal", "run"), "images are letterboxed to a square"),
    "demo": "its images are square",
}
# Commands that accept file arguments after any option.
FILES = frozenset({"predict", "detect", "bench", "compare", "info"})
# Commands that choose the batch size automatically, which is -1 in YOLOv5.
AUTOMATIC = frozenset({"predict", "detect", "val", "compare"})


def renamed() -> dict[str, str]:
    """`RENAMED`, extended by the flags that families rename."""
    return {**RENAMED, **{flag: ours for kind in declared() for flag, ours in kind.flags.items()}}


def understood(command: str, arguments: Sequence[str]) -> list[str]:
    """Translates the arguments to the option names of Secateur and completes a bare --resume.

    Raises:
        UserError: a flag has no counterpart; the message gives the alternative.
    """
    words: list[str] = []
    for position, word in enumerate(arguments):
        flag, equals, value = word.partition("=")
        if not flag.startswith("--"):
            if len(words) > 1 and words[-2] == JOINED.get(command):
                words[-1] += f",{word}"
            else:
                words.append(word)
            continue
        flag = "--" + flag[2:].replace("_", "-")
        spelt_out = {**SPELT_OUT, **SPELT_OUT_IN.get(command, {})}
        if flag in spelt_out and not equals:
            words += spelt_out[flag]
            continue
        if flag in GONE:
            raise UserError(f"{flag} was removed: {GONE[flag]}.")
        answer = OF_COMMAND.get(command, {}).get(flag) or ANSWERS.get(flag)
        if answer is not None:
            raise UserError(f"secateur {command} does not support {flag}: {answer}.")
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        switched = "--" + flag.removeprefix("--").removeprefix("no-")
        if not equals and following not in SWITCHES.get(command, {}).get(switched, (following,)):
            words += [switched, "on" if switched == flag else "off"]
            continue
        words.append(renamed().get(flag, flag) + equals + value)
        if flag == "--resume" and not equals and following.startswith("--"):
            words.append("latest")
    return _with_values(command, words)


def _with_values(command: str, words: Sequence[str]) -> list[str]:
    """Joins an image size given as two words into one and replaces YOLOv5's --batch-size -1.

    Raises:
        UserError: the value is not an image size, or not one that the command supports.
    """
    found: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if flag not in ("--image-size", "--batch-size") or not (equals or rest):
            found.append(word)
            continue
        value = value if equals else rest.pop(0)
        if flag == "--image-size":
            if rest and _is_second(command, value, rest[0]):
                value = f"{value.rstrip(',')} {rest.pop(0)}"
            value = _size(command, value)
        elif value == "-1":
            value = _batch(command)
        found += [f"{flag}={value}"] if equals else [flag, value]
    return found


def _is_second(command: str, first: str, word: str) -> bool:
    """Whether the word after the first number of an image size is the second number, rather than a file or a webcam.

    Raises:
        UserError: the word could be either.
    """
    if not first.rstrip(",").isdecimal() or not word.isdecimal() or (command in FILES and len(word) == 1):
        return False
    if command in FILES and Path(word).exists():
        raise UserError(
            f"--img {first} {word} is ambiguous: {word} is also a file here. Write --img {first}x{word}, or "
            "put the file before --img."
        )
    return True


def _size(command: str, value: str) -> str:
    """An image size as one word."""
    size = read_size(value)
    if command in SQUARES:
        size = square_as_one(size)
        if not isinstance(size, int):
            raise UserError(
                f"secateur {command} supports only square images: {SQUARES[command]}. Use --img {max(size)} "
                f"here. export, val and predict also take --img {size[0]} {size[1]}."
            )
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def _batch(command: str) -> str:
    """The batch size that replaces --batch-size -1, YOLOv5's automatic batch size."""
    if command in AUTOMATIC:
        return "0"
    raise UserError(
        f"secateur {command} has no automatic batch size (--batch -1). Give a number, for example --batch 16."
    )
