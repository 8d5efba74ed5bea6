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


ODDITIES = {
    "booleans": ("[no, yes, On, true, n]", ["no", "yes", "On", "true", "n"]),
    "numbers": (
        "[01, 1.10, 1e3, 0x10, 0o7, 1_000, +5, .5, 007]",
        ["01", "1.10", "1e3", "0x10", "0o7", "1_000", "+5", ".5", "007"],
    ),
    "times": ("[12:30, 2024-01-01, 1:2:3]", ["12:30", "2024-01-01", "1:2:3"]),
    "nothing": ("[~, null, Null, .nan, .inf]", ["~", "null", "Null", ".nan", ".inf"]),
    "quoted": ("['no', \"01\", '~', \"a: b\", ' x']", ["no", "01", "~", "a: b", " x"]),
    "a list": ("\n- no\n- 12:30\n- 1.10\n", ["no", "12:30", "1.10"]),
    "a list that is indented": ("\n    - ~\n    - 01  # zero one\n", ["~", "01"]),
    "a mapping": ("\n  0: no\n  1: 12:30\n  2: ~\n", ["no", "12:30", "~"]),
    "a mapping in one line": ("{0: no, 1: 1.10}", ["no", "1.10"]),
    "a mapping in another order": ("{2: c, 0: a, 1: b}", ["a", "b", "c"]),
    "ids in quotes": ("{'0': yes, \"1\": b}", ["yes", "b"]),
    "ids with zeros": ("\n  00: a\n  01: b\n", ["a", "b"]),
    "ids with zeros that YAML counts in eights": (
        "{" + ", ".join(f"{i:03d}: n{i}" for i in range(12)) + "}",
        [f"n{i}" for i in range(12)],
    ),
    "a list of entries": ("\n- 0: no\n- 1: b\n", ["no", "b"]),
    "nested": ("\n  0:\n    no\n  1: >-\n    traffic\n    light\n  2: |\n    01\n", ["no", "traffic light", "01"]),
    "an alias": ("[*number, b]", ["01", "b"]),
    "an alias of the list": ("*list", ["no", "1.10"]),
    "a merge": ("{<<: *mapping, 1: b}", ["no", "b"]),
    "tags": ("[!!str 01, !!int 5]", ["01", "5"]),
    "case": ("[Car, car, CAR]", ["Car", "car", "CAR"]),
    "letters": ("[é, 猫, traffic light, C++, 50%, a/b]", ["é", "猫", "traffic light", "C++", "50%", "a/b"]),
}


@pytest.mark.parametrize("kind", ODDITIES)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_names_are_the_text_in_the_file(tmp_path: Path, kind: str, ends: str) -> None:
    names, expected = ODDITIES[kind]
    before = "x: {number: &number 01, list: &list [no, 1.10], mapping: &mapping {0: no}}\ntrain: a\n"
    file = tmp_path / "data.yaml"
    file.write_bytes(f"{before}nc: {len(expected)}\nnames: {names}\n".replace("\n", ends).encode())
    assert list(load_data_config(file).names.items()) == list(enumerate(expected))


@pytest.mark.parametrize(
    "content",
    [
        b"train: a\nval: b\nnames: [no, 01]",
        b"\xef\xbb\xbftrain: a\r\nval: b\r\nnames: [no, 01]\r\n",
        b"%YAML 1.1\n---\ntrain: a  # the first half\nval: b\nnames: [no, 01]\n...\n",
        b"{train: a, val: b, test: null, names: [no, 01]}",
        b'{"train": "a", "val": "b", "names": ["no", "01"], "nc": 2}',
        b"train: [a]\nval:\n- b\ntest:\nnames:\n- no\n- 01\n\n\n",
        b"path:\ntrain: a\nval: b\ntest: ~\nnames: {0: no, 1: 01}\ndownload: |\n  import os\n  os.remove('x')\n",
        b"path: ~\ntrain: ./a\nval: a/../b\ntest: false\nnames: [no, 01]\ndownload: http://a.b/x.zip\nyes: no\n",
    ],
)
def test_what_a_data_file_may_look_like(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "data.yaml"
    file.write_bytes(content)
    config = load_data_config(file)
    assert config.splits == {"train": (tmp_path / "a",), "val": (tmp_path / "b",)}
    assert config.names == {0: "no", 1: "01"}


def test_folders_called_like_numbers(tmp_path: Path) -> None:
    for name in ("01", "2024-01-01", "1.10"):
        (tmp_path / name).mkdir()
    config = load_data_config(write(tmp_path, "path: 01\ntrain: 2024-01-01\nval: [1.10, 010]\nnames: [x]"))
    assert config.root == tmp_path / "01"
    assert config.splits == {
        "train": (config.root / "2024-01-01",),
        "val": (config.root / "1.10", config.root / "010"),
    }


def test_names_may_be_left_out_where_their_number_is_given(tmp_path: Path) -> None:
    for names in ("", "names:", "names: ~"):
        config = load_data_config(write(tmp_path, f"train: a\nnc: 2\n{names}\n"))
        assert config.names == {0: "class0", 1: "class1"}


def test_key_points_are_read(tmp_path: Path) -> None:
    assert load_data_config(write(tmp_path, "train: a\nnames: [x]")).kpt_shape is None
    assert load_data_config(write(tmp_path, "train: a\nnames: [x]\nkpt_shape: [17, 3]")).kpt_shape == (17, 3)


@pytest.mark.parametrize(
    "shape", ["17", "[17]", "[0, 2]", "[17, 4]", "[17, 3, 1]", "[17.0, 3]", "[true, 2]", "{17: 3}"]
)
def test_key_points_of_no_shape_are_refused(tmp_path: Path, shape: str) -> None:
    with pytest.raises(
        UserError, match=r"data\.yaml has kpt_shape: .*, but it must be the number of key points and 2 or 3"
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
        ("names: [x]", "has no images"),
        ("path: nowhere\ntrain: a\nnames: [x]", "no such folder"),
        ("train: {a: b}\nnames: [x]", "must be one or more folders"),
        ("train: a\nnc: 30000000", "nc: 30000000, but it must be the number of classes, 1 to 100,000"),
        ("train: a\nnc: .inf", "nc: inf"),
        ("train: a\nnames: [x, {y: z}]", "must be a word"),
        ("train: a\nnames: {0: x, [1]: y}", "line 2"),
        ("train: a\nnames: {0: x, one: y}", "without gaps"),
        ("train: [[a]]\nnames: [x]", "folders"),
        ("train: a\npath: [1]\nnames: [x]", "no such folder"),
        ("train: a\nnames:\n  - a\n  -\n  - c", "class 1 has no name. Add one"),
        ("train: a\nnames: {0: '', 1: b}", "class 0 has no name"),
        ("train: a\nnames: [a # b\n, b, #c\n '']", "class 2 has no name"),
        ("train: a\nnames: [cat, dog, cat]", "class 0 and class 2 have the same name 'cat'. Use a different name"),
        ("train: a\nnames: {0: cat, 1: dog, 00: cow}", "names has the class id 0 twice, for 'cat' and 'cow'"),
        (
            "train: a\nnames:\n  0: cat\n  1: dog\n  0: cow",
            "line 5 cannot be used: the key '0' is given twice, first in",
        ),
        ("train: a\nnames: [x]\ntrain: b", "line 3 cannot be used: the key 'train' is given twice, first in line 1"),
        ("train: a\nroboflow:\n  id: 1\n  id: 2\nnames: [x]", "line 4 cannot be used: the key 'id' is given twice"),
        ("train: a\nnames: {1.0: x}", "0 to 0 without gaps, not '1.0'"),
        ("train: a\nnames: {0x0: x}", "not '0x0'"),
        ("train: a\nnames: {10: x}", "without gaps, but 0 is missing"),
        ("train: a\nnames: {yes: x}", "not 'yes'"),
        (
            "train: a\nnames: [light: red]",
            "must be a word, not {'light': 'red'}. Put a name that contains ': ' in quotes",
        ),
        ("train: a\nnames: no", "names must be"),
        ("train: a\nnames:\n\t- x", "line 3 is not valid YAML: it is indented with a tab"),
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
    with pytest.raises(
        UserError, match=f"The images of {name} were not found. Put the data set into {place}"
    ) as caught:
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
