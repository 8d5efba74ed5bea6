"""Imitation that works for any network: outputs in any nest, standardised by channel."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from secateur.distillation.held_out import HeldOut
from secateur.distillation.imitate import Imitate
from secateur.distillation.methods import StandardisedFeatures, StandardisedOutputs, by_channel, paired_outputs
from secateur.distillation.settings import DistillSettings
from secateur.errors import UserError

SETTINGS = DistillSettings("outputs+features")


class Nested(nn.Module):
    """Returns maps, tokens and vectors in a dict with a list and a tuple, and a tensor of integers."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.maps, self.scores = nn.Conv2d(8, 5, 1), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> dict[str, object]:
        features = self.body(images)
        maps = self.maps(features)
        scores = self.scores(features.mean((2, 3)))
        return {"maps": [maps], "pair": (maps.flatten(2).transpose(1, 2), scores), "best": scores.argmax(1)}


def imitate(student: nn.Module, teacher: nn.Module, *, features: bool = False) -> Imitate:
    methods = [StandardisedOutputs(SETTINGS), *([StandardisedFeatures(SETTINGS)] if features else [])]
    heads = (("maps", "scores"), ("maps", "scores"))
    return Imitate(SETTINGS, student, teacher, methods, heads=heads, channels=(torch.arange(8), torch.arange(8)))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def test_an_identical_student_costs_nothing(images: Tensor) -> None:
    student = Nested().eval()
    term = imitate(student, copy.deepcopy(student), features=True)
    handles = term.watch(student)
    loss, parts = term(student(images), images.new_zeros(0), images)
    assert set(parts) == {"d_out", "d_feat"}
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    for handle in handles:
        handle.remove()


def test_the_gradient_brings_the_student_nearer(images: Tensor) -> None:
    student, teacher = Nested(1), Nested(2)
    term = imitate(student, teacher, features=True)
    term.watch(student)
    optimizer, losses = torch.optim.Adam(student.parameters(), 0.01), []
    for _ in range(30):
        loss, _ = term(student(images), images.new_zeros(0), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_channels_count_alike_whatever_their_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(64, 3, 4, 4, generator=generator)
    off = teacher + torch.randn(64, 3, 4, 4, generator=generator) * 0.5
    scale = torch.tensor([1.0, 10.0, 0.5])[:, None, None]
    method = StandardisedOutputs(SETTINGS)
    term = Imitate(SETTINGS, nn.Identity(), nn.Identity(), [method])
    values = [float(term.compare(off * factor, teacher * factor, off)) for factor in (1.0, scale)]
    assert values[0] == pytest.approx(0.25, rel=0.05)  # (0.5 standard deviations) squared
    assert values[1] == pytest.approx(values[0], rel=0.05)


@pytest.mark.parametrize(
    ("shape", "channels"), [((2, 5), 5), ((2, 7, 5), 5), ((2, 5, 3, 3), 5), ((2, 5, 1, 3, 3), 5), ((4,), 1), ((), 1)]
)
def test_which_dimension_holds_the_channels(shape: tuple[int, ...], channels: int) -> None:
    assert by_channel(torch.zeros(shape)).shape[0] == channels


def test_a_batch_of_one_vector_is_measured_by_the_spread_of_its_values() -> None:
    teacher = torch.tensor([[-4.0, 0.0, 4.0, 8.0]])
    term = Imitate(SETTINGS, nn.Identity(), nn.Identity(), [StandardisedOutputs(SETTINGS)])
    value = float(term.compare(teacher + 1, teacher, torch.zeros(1, 3, 2, 2)))
    assert value == pytest.approx(1 / 20, rel=0.01)  # the variance of the four values is 20


def test_outputs_that_cannot_be_compared_are_one_sentence(images: Tensor) -> None:
    with pytest.raises(UserError, match=r"tensors of the shapes \[1, 2\], but its teacher \[1, 3\]\. Set the teacher"):
        paired_outputs([torch.zeros(1, 2)], [torch.zeros(1, 3)])
    with pytest.raises(UserError, match="returns no floating-point tensor"):
        paired_outputs({"best": torch.zeros(3, dtype=torch.long)}, {})


def test_what_is_held_out_is_measured_by_the_outputs(images: Tensor) -> None:
    student, teacher = Nested(1).eval(), Nested(2)
    measure = HeldOut(teacher, imitate(student, teacher, features=True).compare, batches(images))
    assert measure(teacher.eval()).value == pytest.approx(0, abs=1e-8)
    assert measure(student).value > 0.1


def batches(images: Tensor) -> Iterator[Tensor]:
    yield from images.split(3)
