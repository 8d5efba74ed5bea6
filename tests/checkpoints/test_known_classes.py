"""What reads the labels of a data set for a detector refuses classes that it does not know, in Python too."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import secateur
from secateur.checkpoints.training import for_training
from secateur.data.config import load_data_config
from secateur.errors import UserError
from secateur.families.context import Context, as_one_class, known_data
from secateur.families.evidence import FamilyEvidence
from secateur.families.loading import load_checkpoint
from secateur.families.starting import for_classes
from secateur.networks.checkpoint import Checkpoint, HistoryEntry

pytestmark = pytest.mark.usefixtures("own_folder")
ONE = HistoryEntry("train", {"single_cls": True})


def call_evaluate(checkpoint: Checkpoint, data: Path) -> object:
    return secateur.evaluate(checkpoint, data, image_size=64, workers=0)


def call_score(checkpoint: Checkpoint, data: Path) -> object:
    return secateur.score(checkpoint, secateur.trace(checkpoint), "fisher", data=data, image_size=64, images=8)


def call_prune(checkpoint: Checkpoint, data: Path) -> object:
    options = {"round_to": 1, "rounds": "1", "statistics_images": 8, "correction_images": 8}
    return secateur.prune(checkpoint, data, image_size=64, params=0.8, **options)


def call_shorten(checkpoint: Checkpoint, data: Path) -> object:
    return secateur.shorten(replace(checkpoint, image_size=64), 1, data, layer_score="taylor")


def call_finetune(checkpoint: Checkpoint, data: Path) -> object:
    return secateur.finetune(checkpoint, data, "tuned", epochs=1, image_size=64, workers=0, amp="off")


def call_heal(checkpoint: Checkpoint, data: Path) -> object:
    return secateur.heal(checkpoint, checkpoint, data=data, image_size=64, heal_steps=1)


def call_repair(checkpoint: Checkpoint, data: Path) -> object:
    graph = secateur.trace(checkpoint)
    plan = secateur.allocate(graph, secateur.score(checkpoint, graph, "l2"), percent=0.2, image_size=64)
    return secateur.repair(checkpoint, graph, plan, data, image_size=64)


CALLS = [call_evaluate, call_score, call_prune, call_repair, call_shorten, call_finetune, call_heal]
Call = Callable[[Checkpoint, Path], object]


def named(tiny_data: Path, tmp_path: Path, names: list[str]) -> Path:
    """The generated data set under other names."""
    shutil.copytree(tiny_data.parent, tmp_path / "set", dirs_exist_ok=True)
    text = tiny_data.read_text()
    file = tmp_path / "set" / "data.yaml"
    file.write_text(text[: text.index("names:")] + f"names: [{', '.join(names)}]\n")
    return file


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_a_detector_of_other_classes_is_refused(
    call: Call, tiny_weights: Path, tiny_data: Path, tmp_path: Path
) -> None:
    known = load_checkpoint(tiny_weights)
    many = for_classes(known, {i: f"thing {i}" for i in range(80)})
    with pytest.raises(UserError, match=r"The detector has 80 classes, but .*data\.yaml has 3\. "):
        call(many, tiny_data)
    other = named(tiny_data, tmp_path, ["disc", "square", "dog"])
    with pytest.raises(
        UserError, match=r"other classes than .*data\.yaml \(class 2 is .triangle. in the weights and .dog. in"
    ):
        call(known, other)
    assert not Path("tuned").exists()


@pytest.mark.parametrize("call", [call for call in CALLS if call is not call_finetune], ids=lambda call: call.__name__)
def test_classes_in_another_order_are_refused_by_what_does_not_train(
    call: Call, tiny_weights: Path, tiny_data: Path, tmp_path: Path
) -> None:
    turned = named(tiny_data, tmp_path, ["square", "disc", "triangle"])
    with pytest.raises(
        UserError, match=r"in another order \(class 0 is 'disc' in the weights and 'square' in the data set"
    ):
        call(load_checkpoint(tiny_weights), turned)


def test_a_training_puts_the_head_into_the_order_of_the_data_set(
    tiny_weights: Path, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = load_checkpoint(tiny_weights)
    data = load_data_config(named(tiny_data, tmp_path, ["square", "disc", "triangle"]))
    with caplog.at_level("INFO", "secateur"):
        start, _, single = for_training(checkpoint, data, single_cls=False)
    assert "are reordered" in caplog.text and not single
    assert start.names == {0: "square", 1: "disc", 2: "triangle"}
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before, after = (one.build().predict(images) for one in (checkpoint, start))
    assert torch.equal(after, before[..., [0, 1, 2, 3, 4, 6, 5, 7]])


def test_healing_says_that_images_alone_will_do(tiny_weights: Path, tiny_data: Path, tmp_path: Path) -> None:
    turned = named(tiny_data, tmp_path, ["square", "disc", "triangle"])
    with pytest.raises(UserError, match=r"or set only its images \(--images\), because healing reads no labels"):
        call_heal(load_checkpoint(tiny_weights), turned)


def test_a_score_without_labels_needs_no_classes(tiny_weights: Path, tiny_data: Path, tmp_path: Path) -> None:
    checkpoint, other = load_checkpoint(tiny_weights), named(tiny_data, tmp_path, ["a", "b", "c"])
    assert len(secateur.score(checkpoint, secateur.trace(checkpoint), "l2", data=other))


def test_networks_are_asked_too(tiny_weights: Path, tiny_data: Path) -> None:
    many = for_classes(load_checkpoint(tiny_weights), {i: f"thing {i}" for i in range(80)}).build()
    with pytest.raises(UserError, match="The detector has 80 classes"):
        FamilyEvidence(Context(64, data=load_data_config(tiny_data)), many).scored(many, 8, 0)


def test_all_objects_are_of_the_one_class_of_a_detector_that_was_trained_so(
    tiny_weights: Path, tiny_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    single = replace(for_classes(load_checkpoint(tiny_weights), {0: "object"}), history=(ONE, HistoryEntry("prune")))
    data = load_data_config(tiny_data)
    with caplog.at_level("INFO", "secateur"):
        known = known_data(single, data, "best.pt")
    assert f"best.pt was trained with --single-cls: all objects of {tiny_data} are treated as one class" in caplog.text
    assert known == as_one_class(data) and known.names == {0: "object"}
    assert known_data(single, known) == known
    metrics: Any = call_evaluate(single, tiny_data)
    files = (tiny_data.parent / "labels" / "val").glob("*.txt")
    objects = sum(len(file.read_text().splitlines()) for file in files)
    assert objects and [(row.name, row.instances) for row in metrics.per_class] == [("object", objects)]
    assert call_prune(single, tiny_data).names == {0: "object"}  # type: ignore[attr-defined]
    assert len(call_score(single, tiny_data))  # type: ignore[arg-type]


def test_one_class_alone_is_no_sign_of_such_a_training(tiny_weights: Path, tiny_data: Path) -> None:
    person = for_classes(load_checkpoint(tiny_weights), {0: "person"})
    for history in (
        (),
        (HistoryEntry("train", {"single_cls": False}),),
        (ONE, HistoryEntry("finetune", {"single_cls": False})),
    ):
        with pytest.raises(UserError, match="has 1 classes"):
            call_evaluate(replace(person, history=history), tiny_data)
