"""Draws accuracy against milliseconds from the pareto.json of `secateur pareto`.

    python docs/make_picture.py runs/pareto/exp/pareto.json [docs/images/accuracy-against-ms.svg] [--network yolov5n]

The picture has a background of its own, so that it is legible on light and dark pages. The last line of the output is
its text alternative.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.files import read_json
from secateur.report.figures import INK, PALETTE, new_figure, save_figure

PICTURE = Path(__file__).resolve().parent / "images" / "accuracy-against-ms.svg"
KINDS = {"pruned": ("pruned, not trained", "X", ":"), "healed": ("healed without labels", "o", "-"),
         "finetuned": ("fine-tuned with labels", "s", "--")}  # fmt: skip
Points = Sequence[Mapping[str, Any]]


def main() -> None:
    """Reads the curve, draws it and prints its text alternative."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curve", type=Path, help="a pareto.json")
    parser.add_argument("picture", type=Path, nargs="?", default=PICTURE, help="file to write: .svg or .png")
    parser.add_argument("--figure", default="mAP50-95", help="accuracy to draw: mAP50-95 or mAP50")
    parser.add_argument("--network", help="draw only this network (default: all)")
    options = parser.parse_args()
    curve = read_json(options.curve)
    if options.network:
        curve["points"] = [point for point in curve["points"] if point["network"] == options.network]
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    print(draw(curve, options.figure, options.picture))
    print(alternative(curve, options.figure))


def draw(curve: Mapping[str, Any], name: str, path: Path) -> Path:
    """Writes the picture.

    Args:
        curve: a pareto.json.
        name: figure on the vertical axis.
        path: file to write.
    """
    figure, (axis,) = new_figure(7.6, 4.2)
    networks = list(dict.fromkeys(point["network"] for point in curve["points"]))
    for number, network in enumerate(networks):
        own = [point for point in curve["points"] if point["network"] == network]
        draw_network(axis, own, name, PALETTE[number], below=number % 2 == 1)
    values = [point["figures"][name] for point in curve["points"]]
    axis.set(
        xlabel=f"milliseconds per image ({_runtime(curve)}, batch 1, {curve['threads']} {_threads(curve)})",
        ylabel=name,
        xlim=(0, 1.08 * max(point["ms"] for point in curve["points"])),
        ylim=(max(0.0, min(values) - 0.05), max(values) + 0.05),
    )
    axis.legend(loc="lower right", frameon=False, fontsize=9)
    return save_figure(figure, path)


def draw_network(axis: Any, points: Points, name: str, colour: str, *, below: bool) -> None:
    """The dense network as a star, and a line for each kind of cut.

    Args:
        below: budgets are written below the line, so that those of two networks do not overlap.
    """
    for point in points:
        if point["kind"] == "dense":
            axis.plot(point["ms"], point["figures"][name], marker="*", markersize=15, color=colour, linestyle="none",
                      label=f"{point['network']}, dense", zorder=3)  # fmt: skip
    for kind, (words, marker, line) in KINDS.items():
        own = sorted((point for point in points if point["kind"] == kind), key=lambda point: point["ms"])
        if own:
            places = [point["ms"] for point in own], [point["figures"][name] for point in own]
            axis.plot(
                *places,
                color=colour,
                marker=marker,
                markersize=6,
                linestyle=line,
                label=f"{own[0]['network']}, {words}",
            )
    best = [kind for kind in KINDS if any(point["kind"] == kind for point in points)][-1:]
    for point in points:
        if point["kind"] in best:
            budget = point["label"].removeprefix(f"{point['network']}-").removesuffix(f"-{point['kind']}")
            axis.annotate(f"{budget} %" if budget.isdigit() else budget, (point["ms"], point["figures"][name]),
                          xytext=(0, -15 if below else 8), ha="center", textcoords="offset points",
                          fontsize=8, color=INK)  # fmt: skip


def alternative(curve: Mapping[str, Any], name: str) -> str:
    """What the picture shows, in one sentence with its values."""
    parts = [
        f"{point['label']} ({point['kind']}) {point['figures'][name]:.3f} at {point['ms']:.1f} ms"
        for point in curve["points"]
    ]
    return f"{name} against milliseconds per image: {', '.join(parts)}."


def _runtime(curve: Mapping[str, Any]) -> str:
    return {"onnx": "ONNX Runtime", "torch": "PyTorch"}.get(curve["runtime"], curve["runtime"])


def _threads(curve: Mapping[str, Any]) -> str:
    return "thread" if curve["threads"] == 1 else "threads"


if __name__ == "__main__":
    main()
