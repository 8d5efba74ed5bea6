"""Run folders as runs leave them, with made-up figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAMES = ("disc", "star")
STAGES = (("dense", "dense"), ("repair", "cut + repair"), ("finetuned", "fine-tuned"))


def stage_row(
    title: str, score: float, gflops: float, ms: float | None = None, names: Sequence[str] = NAMES
) -> dict[str, Any]:
    """The row of a stage whose mAP50 is `score`, whose mAP50-95 is half of it."""
    values = {"P": score, "R": score, "mAP50": score, "mAP50-95": score / 2}
    classes = [{"class": i, "name": name, "images": 9, "instances": 12, **values} for i, name in enumerate(names)]
    model = {"parameters": int(1e6 * gflops), "gflops": gflops, "sparsity": 0.0, "file_mb": 2 * gflops}
    row = {"stage": title, "model": model, "metrics": values, "test": None, "per_class": classes, "speed_ms": {}}
    return row | {"judged_by": ["mAP50", "mAP50-95"], "latency_ms": ms}


def write(file: Path, data: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(data if isinstance(data, str) else json.dumps(data))


def about(data: str = "/data/shapes/data.yaml", **more: Any) -> dict[str, Any]:
    steps = [{"part": part, "words": f"{part} (2 epochs)"} for part in ("train", "prune", "finetune")]
    return {
        "command": "run", "line": "secateur run --weights best.pt", "begun": ["2026-01-02 03:04:05+00:00"],
        "recipe": "quick", "budget": "flops 0.5", "weights": "best.pt", "image_size": 128, "steps": steps,
        "data": {"file": data, "splits": {"train": 40, "val": 10}, "classes": list(NAMES)},
        "settings": {"seed": 0, "train": {"epochs": 2}}, "machine": {"device": "cpu", "processor": "A processor"},
        "versions": {"secateur": "0.1.0"},
    } | more  # fmt: skip


def cliff(corrected: bool = True) -> dict[str, Any]:
    points = [
        {"ratio": ratio, "mAP50": 0.8 - ratio, "mAP50_95": 0.4 - ratio / 2, "parameters": 1000, "flops": 2000,
         "chosen": ratio == 0.3, "corrected": 0.8 - ratio / 2 if corrected and ratio else None}
        for ratio in (0.0, 0.3, 0.5)
    ]  # fmt: skip
    return {"points": points, "knee": 0.3, "warning": None}


def plan(kept: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """A plan of layers by name -> (kept, total)."""
    total = sum(count for _, count in kept.values())
    layers = {name: {"kept": f"0-{left - 1}", "total": count} for name, (left, count) in kept.items()}
    return {
        "layers": layers, "units": total, "units_kept": sum(left for left, _ in kept.values()), "image_size": 128,
        "before": {"parameters": 100, "flops": 1000}, "after": {"parameters": 50, "flops": 500}, "budget": None,
        "criterion": "fisher", "notes": [], "removed_blocks": [],
    }  # fmt: skip


def results(epochs: int = 4) -> str:
    rows = [f"{epoch},0.5,{0.1 * epoch:.3f},{0.05 * epoch:.3f}" for epoch in range(epochs)]
    return "\n".join(["epoch,train/box_loss,metrics/mAP_0.5,metrics/mAP_0.5:0.95", *rows])


def whole_run(folder: Path, *, names: Sequence[str] = NAMES, data: str = "/data/shapes/data.yaml") -> Path:
    """A run that has come to its end: train, prune, finetune."""
    scores = {"dense": 0.8, "repair": 0.7, "finetuned": 0.79}
    rows = {
        name: stage_row(title, scores[name], 2.0 if name == "dense" else 1.0, 8.0 if name == "dense" else 4.0, names)
        for name, title in STAGES
    }
    samples = {"dense": [8.0, 8.1, 8.2], "final": [4.0, 4.1, 4.2]}
    notes = {"latency": {"dense": 8.0, "final": 4.0}, "latency_samples": samples}
    parts = {
        "train": {"rows": [], "notes": {}},
        **{f"row {name}": row for name, row in rows.items()},
        "prune": {"rows": [], "notes": {"plan": {"warning": None, "notes": ["Clamped: model.0 keeps 8."]}}},
        "finetune": {"rows": [], "notes": {}},
        "measure": {"rows": [], "notes": notes},
    }
    write(folder / "progress.json", {"key": {}, "finished": True, "steps": parts})
    summary = {"command": "run", "recipe": "quick", "folder": str(folder), "table": list(rows.values())}
    write(folder / "summary.json", summary | {"metrics": rows["finetuned"]["metrics"], "model": {}})
    write(folder / "about.json", about(data))
    write(folder / "cliff.json", cliff())
    write(folder / "plan.json", plan({"model.0.conv": (8, 16), "model.1.conv": (32, 32)}))
    write(folder / "run.log", "2026-01-02 03:04:05 warning: The disk is slow\n2026-01-02 03:04:06 dense: fine\n")
    for name in ("train", "finetune"):
        write(folder / name / "results.csv", results())
    return folder


def killed_run(folder: Path) -> Path:
    """The same, killed while it was fine-tuned."""
    whole_run(folder)
    progress = json.loads((folder / "progress.json").read_text())
    steps = {name: part for name, part in progress["steps"].items() if name in {"train", "row dense", "row repair",
                                                                                "prune"}}  # fmt: skip
    write(folder / "progress.json", {"key": {}, "finished": False, "steps": steps})
    (folder / "summary.json").unlink()
    return folder


def record(root: Path, files: Sequence[str], found: Sequence[Sequence[float]], data: str = "data.yaml") -> Any:
    """Detections on images of 64 x 48 px with one object of each class, at x 10 and x 40.

    Args:
        root: folder of the data set, in which the images are written.
        found: image, x, class and confidence of each detection; an x of 10 or 40 is where the object is.
    """
    import cv2
    import numpy as np

    from secateur.evaluation.matching import Boxes
    from secateur.evaluation.record import DetectionRecord
    from secateur.evaluation.settings import NmsSettings

    def boxes(rows: Sequence[Sequence[float]]) -> Boxes:
        table = np.array(sorted(rows), dtype=float).reshape(-1, 4)
        corners = np.stack([table[:, 1], np.full(len(table), 8.0), table[:, 1] + 16, np.full(len(table), 32.0)], 1)
        return Boxes(table[:, 0].astype(np.int64), corners, table[:, 2].astype(np.int64), table[:, 3])

    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / file), np.full((48, 64, 3), 40 * number, np.uint8))
    objects = [(i, x, c, 1.0) for i in range(len(files)) for c, x in enumerate((10.0, 40.0))]
    shapes, names = np.tile([48, 64], (len(files), 1)).astype(np.int32), dict(enumerate(NAMES))
    made = DetectionRecord.of(
        [str(root / file) for file in files], shapes, boxes(objects), boxes(found), names, NmsSettings()
    )
    return made.of_data(root / data, "val", root)


def with_detections(folder: Path, root: Path) -> Path:
    """Gives a run detections on four images: the dense network finds all, the final one misses both on image 2."""
    files = [f"images/{number}.png" for number in range(4)]
    everything = [(i, x, c, 0.9) for i in range(4) for c, x in enumerate((10.0, 40.0))]
    fewer = [(i, x, c, 0.8) for i, x, c, _ in everything if i != 2] + [(1, 25.0, 0, 0.3), (3, 10.0, 0, 0.05)]
    for name, found in (("dense", everything), ("finetuned", fewer)):
        record(root, files, found).save(folder / "evaluation" / name / "detections.npz")
    return folder
