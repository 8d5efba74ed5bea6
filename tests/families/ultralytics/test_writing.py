"""`--format ultralytics`: what `YOLO(...)` loads in a process without Secateur, validates, exports and trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("ultralytics.nn")

from ultralytics_subjects import SIZE, subject_named

from secateur.cli import main
from secateur.errors import UserError
from secateur.evaluation.cost import count
from secateur.families.loading import load_checkpoint
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.surgery import cut

ALONE = """
import json, sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "secateur":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np, torch
from ultralytics import YOLO
file, data, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
yolo = YOLO(file)
module = yolo.model.float().eval()
image = torch.from_numpy(np.load("image.npy"))
with torch.no_grad():
    given = module(image)
first = given[0][0] if isinstance(given[0], tuple) else given[0]
np.save("answer.npy", first.numpy())
said = {
    "parameters": sum(p.numel() for p in module.parameters()),
    "names": yolo.names, "task": yolo.task,
    "boxes": len(yolo.predict(np.zeros((size, size, 3), np.uint8), imgsz=size, conf=0.0, verbose=False)[0].boxes or ()),
}
if data:
    result = YOLO(file).val(data=data, imgsz=size, batch=4, workers=0, plots=False, verbose=False, device="cpu")
    said["val"] = float(result.box.map50)
exported = YOLO(file).export(format="torchscript", imgsz=size, device="cpu")
answer = torch.jit.load(exported)(image)
answer = answer[0] if isinstance(answer, (tuple, list)) else answer
said["exported"] = float((answer - first).abs().max() / first.abs().max())
said["secateur"] = any(name.partition(".")[0] == "secateur" for name in sys.modules)
print("SAID" + json.dumps(said))
"""


def written(name: str, folder: Path) -> tuple[Any, Path]:
    """A cut network, and its file."""
    subject = subject_named(name)
    small = cut(subject.network, subject.graph, subject.plan(3))
    save_checkpoint(Checkpoint.of(small, image_size=SIZE), folder / "best_pruned.safetensors")
    main(["export", "--weights", str(folder / "best_pruned.safetensors"), "--format", "ultralytics",
          "--project", str(folder), "--name", "out"])  # fmt: skip
    return small, folder / "out" / "best_pruned.pt"


def described(data: Path, folder: Path, classes: int = 3) -> Path:
    """The data set by its absolute path, with its first classes."""
    said = yaml.safe_load(data.read_text())
    names = list(said["names"].values() if isinstance(said["names"], dict) else said["names"])
    said |= {"path": str(data.parent), "names": dict(enumerate(names[:classes]))}
    said.pop("nc", None)
    (folder / "own.yaml").write_text(yaml.safe_dump(said))
    return folder / "own.yaml"


def alone(file: Path, data: str, folder: Path) -> dict[str, Any]:
    """What a process without Secateur says of a file."""
    environment = {**os.environ, "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    ran = subprocess.run(
        [sys.executable, "-c", ALONE, str(file), data, str(SIZE)],
        capture_output=True, text=True, cwd=folder, env=environment, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    line = next(line for line in ran.stdout.splitlines() if line.startswith("SAID"))
    said: dict[str, Any] = json.loads(line.removeprefix("SAID"))
    return said


@pytest.mark.parametrize("name", ["yolov8n", "yolov10n", "yolo11n", "yolo26n", "yolov8n-seg", "yolov8n-cls"])
def test_yolo_loads_validates_and_exports_without_secateur(name: str, tiny_data: Path, tmp_path: Path) -> None:
    small, file = written(name, tmp_path)
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "image.npy", image.numpy())
    data = str(described(tiny_data, tmp_path)) if "-" not in name else ""
    said = alone(file, data, tmp_path)
    assert said["parameters"] == count(small, SIZE).parameters and not said["secateur"]
    assert said["names"] == {"0": "disc", "1": "square", "2": "triangle"}
    assert said["exported"] < 1e-4
    assert not data or 0 <= said["val"] <= 1
    with torch.no_grad():
        given = small.model(image)[0]
    answer = torch.from_numpy(np.load(tmp_path / "answer.npy"))
    expected = given[0] if isinstance(given, tuple) else given
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-3)


def test_our_reader_opens_the_file_with_its_widths(tmp_path: Path) -> None:
    small, file = written("yolov8n", tmp_path)
    back = load_checkpoint(file).build()
    assert back.architecture.numbers == small.architecture.numbers != {}
    assert {name: tensor.shape for name, tensor in back.state_dict().items()} == {
        name: tensor.shape for name, tensor in small.state_dict().items()
    }
    kept = torch.load(file, weights_only=False)
    assert kept["note"].startswith("Pruned with Secateur from 3,01")
    assert kept["train_args"]["imgsz"] == SIZE


def test_the_note_names_the_trainer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written("yolov8n", tmp_path)
    assert "trainer=secateur.ultralytics.Trainer" in capsys.readouterr().out


def test_another_family_is_refused(tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--weights", str(tiny_weights), "--format", "ultralytics"])
    assert "needs a network of the family 'ultralytics'" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [3, 2], ids=["same", "fewer"])
@pytest.mark.parametrize("name", ["yolov8n", "yolo26n"])
def test_the_trainer_keeps_the_widths(
    name: str, classes: int, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics import YOLO

    import secateur.ultralytics

    monkeypatch.chdir(tmp_path)
    small, file = written(name, tmp_path)
    yolo = YOLO(file)
    yolo.train(
        trainer=secateur.ultralytics.Trainer, data=str(described(tiny_data, tmp_path, classes)), epochs=1, imgsz=SIZE,
        batch=8, workers=0, amp=False, plots=False, device="cpu", project=str(tmp_path), name="trained", verbose=False,
    )  # fmt: skip
    after = torch.load(tmp_path / "trained/weights/last.pt", weights_only=False)["model"]
    shapes = {key: tensor.shape for key, tensor in small.model.state_dict().items()}
    now = {key: tensor.shape for key, tensor in after.state_dict().items()}
    changed = {key for key in shapes if shapes[key] != now[key]}
    assert shapes.keys() == now.keys()
    assert all("cv3" in key and key.rpartition(".")[0].endswith(".2") for key in changed)
    assert bool(changed) == (classes != 3)
    assert load_checkpoint(tmp_path / "trained/weights/last.pt").nc == classes


def test_the_trainer_needs_a_network() -> None:
    import secateur.ultralytics

    with pytest.raises(UserError, match="needs a network to train"):
        secateur.ultralytics.Trainer.get_model(object(), "yolov8n.yaml", None)
    with pytest.raises(AttributeError):
        secateur.ultralytics.NoTrainer  # noqa: B018
    assert secateur.ultralytics.Trainer.__module__ == "secateur.ultralytics"
