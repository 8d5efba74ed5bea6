"""The flags that users of YOLOv5 and of pruning systems know: most mean an option of ours, others get an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from secateur.errors import UserError
from secateur.pruning.settings import FORMER_NAMES
from secateur.sizes import read_size, square_as_one
from secateur.sparsity.settings import REMOVED
from secateur.training.own_options import declared

# Flags that are another name for an option of ours; aliases that the help lists are not repeated.
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
# Flags that switch on what here is said with a value.
SPELT_OUT: Mapping[str, tuple[str, ...]] = {"--noval": ("--val-every", "0"), "--adam": ("--optimizer", "Adam")}
# Flags that mean something in one command only.
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
# Flags that take several words, which here is one with commas.
JOINED: Mapping[str, str] = {"export": "--format"}
# Flags without a counterpart: what to do instead, in one sentence.
ANSWERS: Mapping[str, str] = {
    "--do-prune": "weights are pruned while training by saying how many: --target-sparsity 0.8 (secateur finetune)",
    "--prune": "pruning is a command of its own: secateur prune --weights best.pt --flops 0.5",
    "--st": "sparse training is a command of its own: secateur sparsify --weights best.pt --data data.yaml",
    "--ft-pruned-model": "a pruned checkpoint is trained like any other: secateur finetune --weights cut.safetensors",
    "--cache": "images are kept in memory by themselves where they fit; leave it out",
    "--cache-images": "images are kept in memory by themselves where they fit; leave it out",
    "--exist-ok": "nothing is ever overwritten: runs go to exp, exp2, ...; name one with --name",
    "--save-period": "the resumable state is saved every epoch, and more often with --save-every-steps",
    "--nosave": "best and last are always saved; leave it out",
    "--evolve": "hyper-parameters are not evolved here; give a file with --hyp",
    "--image-weights": "images are drawn evenly here; leave it out",
    "--quad": "this loader does not exist here; leave it out",
    "--local-rank": "torchrun tells each process its rank; leave it out",
    "--notest": "evaluate rarely with --val-every 0",
    "--augment": "there is no test-time augmentation here; leave it out",
    "--half": "mixed precision is chosen with --amp in a training and with --precision in secateur val and bench",
    "--noplots": "plots are drawn where matplotlib is installed; leave it out",
    "--verbose": "the table of all classes is always printed; leave it out",
}
_NOT_IN_DETECT: Mapping[str, str] = {
    "--visualize": "feature maps are not drawn here; leave it out",
    "--update": "weights are never changed by a prediction; leave it out",
    "--dnn": "ONNX files run in ONNX Runtime; leave it out",
    "--data": "a detector knows the names of its classes; leave it out",
    "--save-csv": "take --save-json, which writes a line of JSON for each image",
}
# Options that an earlier version had, under our own names.
GONE: Mapping[str, str] = {f"--{name.replace('_', '-')}": text for name, (_, text) in REMOVED.items()}
# Answers that hold for one command only.
OF_COMMAND: Mapping[str, Mapping[str, str]] = {
    "predict": _NOT_IN_DETECT,
    "detect": _NOT_IN_DETECT,
    "prune": {"--cfg": "a checkpoint knows its own network; leave it out"},
    "finetune": {"--cfg": "a checkpoint knows its own network; leave it out"},
    "sparsify": {"--cfg": "a checkpoint knows its own network; leave it out"},
}
# Commands that read or make squares alone, and why.
SQUARES: Mapping[str, str] = {
    **dict.fromkeys(("train", "sparsify", "finetune"), "training images are square"),
    **dict.fromkeys(("prune", "sweep"), "images are letterboxed to a square for scoring"),
    **dict.fromkeys(("heal", "run"), "images are letterboxed to a square"),
    "demo": "its images are square",
}
# Commands whose files and sources may follow any option.
FILES = frozenset({"predict", "detect", "bench", "compare", "info"})
# Commands that pick the number of images in a batch themselves, for which YOLOv5 has -1.
AUTOMATIC = frozenset({"predict", "detect", "val", "compare"})


def renamed() -> dict[str, str]:
    """`RENAMED`, and the flags that families have other names for."""
    return {**RENAMED, **{flag: ours for kind in declared() for flag, ours in kind.flags.items()}}


def understood(command: str, arguments: Sequence[str]) -> list[str]:
    """The words under our names; a bare --resume is completed.

    Raises:
        UserError: a flag without a counterpart; the sentence says what to do instead.
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
            raise UserError(f"secateur {command} has no {flag}: {answer}.")
        words.append(renamed().get(flag, flag) + equals + value)
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        if flag == "--resume" and not equals and following.startswith("--"):
            words.append("latest")
    return _with_values(command, words)


def _with_values(command: str, words: Sequence[str]) -> list[str]:
    """The words with one for an image size, also where it was given as two, and without YOLOv5's --batch-size -1.

    Raises:
        UserError: what is given is no size, or not one for this command.
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
    """Whether a word behind the first number of an image size is the second one, and no file or webcam.

    Raises:
        UserError: it may be both.
    """
    if not first.rstrip(",").isdecimal() or not word.isdecimal() or (command in FILES and len(word) == 1):
        return False
    if command in FILES and Path(word).exists():
        raise UserError(
            f"--img {first} {word}: {word} is a file here too; write --img {first}x{word}, or the file before --img."
        )
    return True


def _size(command: str, value: str) -> str:
    """An image size as one word."""
    size = read_size(value)
    if command in SQUARES:
        size = square_as_one(size)
        if not isinstance(size, int):
            raise UserError(
                f"secateur {command} takes one image size (--img {max(size)}): {SQUARES[command]}; give "
                f"--img {size[0]} {size[1]} to export, val or predict."
            )
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def _batch(command: str) -> str:
    """What --batch-size -1, the automatic one of YOLOv5, is here."""
    if command in AUTOMATIC:
        return "0"
    raise UserError(f"secateur {command} has no automatic batch size (--batch -1); give a number, e.g. --batch 16.")
