"""What files say of themselves: there and back, and whatever else a foreign file may say."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secateur.deploy.metadata import Metadata

FULL = Metadata(
    names={0: "cat", 1: 'it\'s a "dog"'},
    strides=(8.0, 16.0),
    told={"anchors": [[[10.0, 13.0], [16.0, 30.5]], [[30.0, 61.0], [62.0, 45.0]]], "task": "detect"},
    family="mine",
    size=(64, 96),
    batch=0,
    output="raw",
    precision="fp16",
)


def test_there_and_back() -> None:
    assert Metadata.read(FULL.to_dict()) == Metadata.read(FULL.to_text()) == Metadata.of_json(FULL.to_json()) == FULL


def test_what_the_user_reads_stands_beside_it() -> None:
    told = Metadata(names={0: "cat"}, told={"lineage": "prune > heal"}).to_text()
    assert told["lineage"] == "prune > heal" and told["names"] == "{0: 'cat'}" and told["stride"] == "32"


def test_foreign_files_tell_less() -> None:
    read = Metadata.read({"stride": "32", "names": "['cat', 'dog']", "imgsz": "[640, 640]", "batch": "1"})
    assert read == Metadata(names={0: "cat", 1: "dog"}, size=(640, 640), batch=1)


@pytest.mark.parametrize(
    "data",
    [
        None, [], "x", {"names": "__import__('os')"}, {"names": "{1:"}, {"stride": "-1"}, {"strides": "[8, 0]"},
        {"strides": [8, float("nan")]}, {"family": 3}, {"family": ""}, {"imgsz": "[1e99, 2]"},
        {"batch": "many"}, {"output": ["raw"]}, {"precision": "fp4"}, {"names": {"a": "b"}},
    ],
)  # fmt: skip
def test_nonsense_says_nothing(data: object) -> None:
    assert Metadata.read(data) == Metadata()


VALUES = st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.lists(st.integers(), max_size=3), st.none())


@given(st.dictionaries(st.sampled_from(sorted(FULL.to_dict())), VALUES))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_anything_is_read(data: dict) -> None:
    read = Metadata.read(data)
    assert read.strides and all(stride > 0 for stride in read.strides)
    assert read.output in ("decoded", "raw", "detections")


@pytest.mark.parametrize("text", ["", "{", "[1]", b"\xff", "[" * 100_000])
def test_text_that_is_no_json_says_nothing(text: str) -> None:
    assert Metadata.of_json(text) == Metadata()
