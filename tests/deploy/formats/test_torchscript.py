"""TorchScript: its file, programs of others, broken files, and programs that reach beyond tensors."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch

from export_formats import answered, expected_of
from law_subjects import subject_named
from secateur.deploy.exporters import export
from secateur.deploy.runtimes import open_predictor
from secateur.deploy.settings import ExportSettings
from secateur.errors import UserError
from secateur.runs.compare.subject import Subject

SIZE = (64, 96)
SETTINGS = ExportSettings(format="torchscript")


@pytest.fixture(scope="module")
def file(detector, tmp_path_factory) -> Path:
    return export(detector, tmp_path_factory.mktemp("files") / "best.torchscript", SIZE, SETTINGS).path


class Both(torch.nn.Module):
    """What YOLOv5 exports: rows and the maps of the head."""

    def __init__(self, detector) -> None:
        super().__init__()
        self.detector = detector.fused()

    def forward(self, images):
        raw = self.detector(images)
        return self.detector.decode(raw), raw


def test_a_program_without_this_package_reads_it(detector, file) -> None:
    extra = {"config.txt": ""}
    program = torch.jit.load(str(file), _extra_files=extra)
    told = json.loads(extra["config.txt"])
    assert told["shape"] == [1, 3, *SIZE] and told["stride"] == 32
    assert list(told["names"].values()) == list(detector.names.values())
    images = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        expected = detector.eval().predict(images)
        torch.testing.assert_close(program(images), expected, rtol=1e-3, atol=1e-3)
        half = program.half()(images.half())  # as YOLOv5 turns files into half precision
        torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)


def test_the_archive_keeps_no_temporary_name(file) -> None:
    assert {name.split("/")[0] for name in zipfile.ZipFile(file).namelist()} == {"archive"}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "told", [{"shape": [1, 3, *SIZE], "stride": 32, "names": {"0": "a", "1": "b", "2": "c"}}, {"imgsz": list(SIZE)}]
)
def test_files_of_another_exporter(detector, tmp_path, half: bool, told: dict) -> None:
    program = torch.jit.trace(Both(detector).eval(), torch.zeros(1, 3, *SIZE), strict=False, check_trace=False)
    path = str(tmp_path / "yolov5n.torchscript")
    torch.jit.save(program.half() if half else program, path, _extra_files={"config.txt": json.dumps(told)})
    predictor, images = open_predictor(path), torch.rand(2, 3, *SIZE)
    assert predictor.image_size == SIZE and predictor.batch == 1
    assert list(predictor.names.values()) == (["a", "b", "c"] if "names" in told else ["class0", "class1", "class2"])
    assert predictor.strides == (8, 16, 32)
    expected = expected_of(detector, images)
    tolerance = 0.1 if half else 1e-3
    torch.testing.assert_close(answered(predictor, images), expected, rtol=tolerance, atol=tolerance)


def test_a_file_without_a_shape_is_tried_with_the_channels_that_it_tells(tmp_path) -> None:
    detector = subject_named("grey").detector
    program = torch.jit.trace(Both(detector).eval(), torch.zeros(1, 1, *SIZE), strict=False, check_trace=False)
    told = json.dumps({"imgsz": list(SIZE), "channels": 1})
    torch.jit.save(program, str(tmp_path / "a.torchscript"), _extra_files={"config.txt": told})
    predictor = open_predictor(tmp_path / "a.torchscript")
    assert predictor.channels == 1 and predictor.image_size == SIZE and predictor.nc == 3


@pytest.mark.parametrize("told", ["", "{", "[]", '{"shape": [1, 3]}', '{"shape": [0, 3, 64, 64]}', '{"shape": "1"}'])
def test_a_file_that_says_nothing_is_tried_at_the_usual_size(detector, tmp_path, told: str) -> None:
    program = torch.jit.trace(Both(detector).eval(), torch.zeros(1, 3, *SIZE), strict=False, check_trace=False)
    torch.jit.save(program, str(tmp_path / "a.torchscript"), _extra_files={"config.txt": told})
    predictor = open_predictor(tmp_path / "a.torchscript")
    assert predictor.image_size == (640, 640) and predictor.nc == 3


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_was_cut_off_is_refused(file, tmp_path, share) -> None:
    content = file.read_bytes()
    (tmp_path / "a.torchscript").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"Cannot read \S*a\.torchscript as a TorchScript file") as caught:
        open_predictor(tmp_path / "a.torchscript")
    assert "\n" not in str(caught.value)


def _with_entry_sizes(file: Path, packed: int | None = None, unpacked: int | None = None) -> bytes:
    """The file, where the table of contents says other sizes of the first entry."""
    content = bytearray(file.read_bytes())
    place = content.rfind(b"PK\x05\x06")
    start = int.from_bytes(content[place + 16 : place + 20], "little")
    for offset, value in ((20, packed), (24, unpacked)):
        if value is not None:
            content[start + offset : start + offset + 4] = value.to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"packed": 4_000_000_000}, "declares 4,000,000,000 for"),
        ({"unpacked": 4_000_000_000}, "declares 4,"),
    ],
)
def test_a_file_that_declares_more_than_it_holds_is_refused(file, tmp_path, sizes, words) -> None:
    (tmp_path / "a.torchscript").write_bytes(_with_entry_sizes(file, **sizes))
    with pytest.raises(UserError, match=words) as caught:
        open_predictor(tmp_path / "a.torchscript")
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_program_that_unpacks_to_too_much_is_refused(file, tmp_path) -> None:
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(tmp_path / "a.torchscript", "w", zipfile.ZIP_DEFLATED) as to:
        for entry in before.infolist():
            to.writestr(entry, before.read(entry))
        with to.open("archive/code/more.py", "w", force_zip64=True) as text:
            for _ in range(101):
                text.write(bytes(1_000_000))
    with pytest.raises(UserError, match="its program is too long"):
        open_predictor(tmp_path / "a.torchscript")


def test_damaged_weights_are_noticed(file, tmp_path) -> None:
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    (tmp_path / "a.torchscript").write_bytes(content)
    with pytest.raises(UserError, match=r"as a TorchScript file: archive/\S+ is damaged"):
        open_predictor(tmp_path / "a.torchscript")


def test_other_files_are_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="no file"):
        open_predictor(tmp_path / "missing.torchscript")
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.torchscript")
    with pytest.raises(UserError, match="PyTorch cannot run"):
        open_predictor(tmp_path / "a.torchscript")
    torch.jit.save(torch.jit.script(torch.nn.Flatten()), str(tmp_path / "b.torchscript"))
    with pytest.raises(
        UserError,
        match=r"Cannot read \S*b\.torchscript: it maps .* to 1 x 1228800, one value per class",
    ):
        open_predictor(tmp_path / "b.torchscript")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "c.torchscript"))
    with pytest.raises(UserError, match="fails on images of 1 x 3 x 640 x 640: "):
        open_predictor(tmp_path / "c.torchscript")


class Writes(torch.nn.Module):
    """Writes a file of the user's when it is run."""

    def __init__(self, victim: str) -> None:
        super().__init__()
        self.victim = victim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        torch.save(images, self.victim)
        return images


class Maps(torch.nn.Module):
    """Maps a file of the user's into a tensor."""

    def __init__(self, victim: str) -> None:
        super().__init__()
        self.victim = victim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_file(self.victim, True, 4)


@pytest.mark.parametrize(("kind", "word"), [(Writes, "save"), (Maps, "from_file")])
def test_programs_that_reach_for_files_are_not_opened(tmp_path, kind, word) -> None:
    victim = tmp_path / "victim"
    torch.jit.save(torch.jit.script(kind(str(victim))), str(tmp_path / "a.torchscript"))
    with pytest.raises(UserError, match=f"contains '{word}'"):
        open_predictor(tmp_path / "a.torchscript")
    assert not victim.exists()


def test_the_precision_of_the_file_is_its_own(file, caplog) -> None:
    subject = Subject.of(str(file), 0, torch.device("cpu"), "bf16")
    assert (subject.image_size, subject.network.nc) == (96, 3) and "TorchScript, 3 classes" in subject.line
    assert "of its export, not in bf16" in caplog.text


@pytest.mark.parametrize("length", [0, 16])
def test_a_tensor_that_is_longer_than_its_data_is_refused(file, tmp_path, length: int) -> None:
    """PyTorch reads beyond the end of the memory: the process would die, or take what is there for weights."""
    with zipfile.ZipFile(file) as before, zipfile.ZipFile(tmp_path / "short.torchscript", "w") as after:
        longest = max((e for e in before.infolist() if "/data/" in e.filename), key=lambda entry: entry.file_size)
        for entry in before.infolist():
            content = before.read(entry)
            after.writestr(entry.filename, content[:length] if entry is longest else content)
    words = rf"short\.torchscript as a TorchScript file.*: a tensor is longer than its data, {longest.filename}"
    with pytest.raises(UserError, match=words):
        open_predictor(tmp_path / "short.torchscript")
