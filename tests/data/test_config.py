"""Reading data.yaml: where things are looked for, and one clear sentence for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostile_yaml import HOSTILE, check_sentence
from secateur.data.config import load_data_config
from secateur.errors import UserError


def write(folder: Path, text: str) -> Path:
    file = folder / "data.yaml"
    file.write_text(text)
    return file


def test_path_is_looked_for_beside_the_yaml_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "set").mkdir(parents=True)
    (tmp_path / "there" / "set").mkdir(parents=True)
    (tmp_path / "there" / "other").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    config = load_data_config(write(tmp_path / "here", "path: set\ntrain: [a, b]\nnames: [x]"))
    assert config.root == tmp_path / "here" / "set"
    assert config.splits == {"train": (config.root / "a", config.root / "b")}
    assert load_data_config(write(tmp_path / "here", "path: other\ntrain: a\nnames: [x]")).root == Path.cwd() / "other"


@pytest.mark.parametrize("names", ["[x, y]", "{0: x, 1: y}", "{1: y, 0: x}"])
def test_names_as_list_or_mapping(tmp_path: Path, names: str) -> None:
    config = load_data_config(write(tmp_path, f"train: a\nval:\nnc: 2\nnames: {names}"))
    assert config.names == {0: "x", 1: "y"}
    assert config.nc == 2
    assert list(config.splits) == ["train"]


def test_key_points_are_read(tmp_path: Path) -> None:
    assert load_data_config(write(tmp_path, "train: a\nnames: [x]")).kpt_shape is None
    assert load_data_config(write(tmp_path, "train: a\nnames: [x]\nkpt_shape: [17, 3]")).kpt_shape == (17, 3)


@pytest.mark.parametrize(
    "shape", ["17", "[17]", "[0, 2]", "[17, 4]", "[17, 3, 1]", "[17.0, 3]", "[true, 2]", "{17: 3}"]
)
def test_key_points_of_no_shape_are_refused(tmp_path: Path, shape: str) -> None:
    with pytest.raises(
        UserError, match=r"data\.yaml has kpt_shape: .*; it must be the number of key points and 2 or 3"
    ):
        load_data_config(write(tmp_path, f"train: a\nnames: [x]\nkpt_shape: {shape}"))


def test_parent_prefix_of_exported_data_sets(tmp_path: Path) -> None:
    (tmp_path / "train" / "images").mkdir(parents=True)
    config = load_data_config(write(tmp_path, "train: ../train/images\nnames: [x]"))
    assert config.splits["train"] == (tmp_path / "train" / "images",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train: a\nnc: 3\nnames: [x]", "nc: 3 but 1 names"),
        ("train: a\nnc: many\nnames: [x]", "nc: 'many'"),
        ("train: a\nnames: {0: x, 2: y}", "without gaps"),
        ("train: a\nnames: x", "names must be"),
        ("train: a", "no names"),
        ("names: [x]", "names no images"),
        ("path: nowhere\ntrain: a\nnames: [x]", "no such folder"),
        ("train: {a: b}\nnames: [x]", "must be one or more folders"),
        ("train: a\nnc: 30000000", "nc: 30000000; it must be the number of classes, 1 to 100,000"),
        ("train: a\nnc: .inf", "nc: inf"),
        ("train: a\nnames: [x, {y: z}]", "must be a word"),
        ("train: a\nnames: {0: x, [1]: y}", "line 2"),
        ("train: a\nnames: {0: x, one: y}", "without gaps"),
        ("train: [2024-01-01]\nnames: [x]", "folders"),
        ("train: a\npath: [1]\nnames: [x]", "no such folder"),
        ("- 1", "not a data set description"),
        ("a: [", "not valid YAML"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        load_data_config(write(tmp_path, text))
    assert "data.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_data_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(("name", "folder"), [("coco.yaml", "coco"), ("coco128.yaml", "coco128")])
def test_known_data_sets_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    place = tmp_path / "datasets" / folder
    with pytest.raises(UserError, match=f"The images of {name} are not here: put the data set into {place}") as caught:
        load_data_config(name)
    assert "\n" not in str(caught.value)
    place.mkdir(parents=True)
    config = load_data_config(name)
    assert config.root == place and config.nc == 80 and {"train", "val"} <= set(config.splits)
    assert (config.names[0], config.names[12], config.names[79]) == ("person", "parking meter", "toothbrush")


def test_a_file_of_ones_own_goes_before_a_known_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "train: a\nnames: [x]").rename(tmp_path / "coco128.yaml")
    assert load_data_config("coco128.yaml").names == {0: "x"}
    with pytest.raises(UserError, match=r"elsewhere/coco128.yaml does not exist"):
        load_data_config("elsewhere/coco128.yaml")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "data.yaml"
    file.write_bytes(b"train: a\nnames: [x]\n" + HOSTILE[name])
    with pytest.raises(UserError) as caught:
        load_data_config(file)
    check_sentence(caught.value, "data.yaml")
