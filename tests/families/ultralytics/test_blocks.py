"""Residual blocks leave a network of the package: it computes what it computed with their branches at zero."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

pytest.importorskip("ultralytics.nn")

from ultralytics_subjects import SIZE, Subject, checkpoint_named, subject_named

from secateur.api import remove
from secateur.cli import main
from secateur.errors import UserError
from secateur.evaluation.cost import count
from secateur.families.loading import load_checkpoint
from secateur.families.outputs import tensors_of
from secateur.families.ultralytics.architecture import Ultralytics
from secateur.families.ultralytics.writing import write_file
from secateur.networks.checkpoint import Checkpoint, save_checkpoint
from secateur.pruning.depth import candidates, removal_of
from secateur.pruning.depth import remove as without
from secateur.pruning.graph import trace
from secateur.pruning.plan import Plan
from secateur.pruning.repair.reconstruction import moments_of_inputs, reconstruct_
from secateur.pruning.surgery import cut, mask

CHAINS = {
    "yolov8n": ("model.model.2.m.0", "model.model.6.m.0"),  # the outputs of all blocks are read
    "yolov9t": ("model.model.4.cv2.0.m.0", "model.model.4.cv3.0.m.2"),
    "yolov10n": ("model.model.4.m.1", "model.model.22.m.0"),
    "yolo12n": ("model.model.6.m.0.1", "model.model.8.m.1.0"),  # of attention
    "yolo26n": ("model.model.10.m.0", "model.model.22.m.0.0", "model.model.22.m.0.1"),
}
IMAGES = torch.rand((3, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", CHAINS)
def test_a_network_without_blocks_is_the_one_without_their_branches(name: str, tmp_path: Path) -> None:
    subject = subject_named(name)
    network = cut(subject.network, subject.graph, subject.plan(3))  # widths and numbers of a cut network stay
    assert set(CHAINS[name]) <= {block.name for block in candidates(network)}
    small, silent = without(network, CHAINS[name]), copy.deepcopy(network)
    for block in CHAINS[name]:
        silent.get_submodule(block).register_forward_hook(lambda module, inputs, output: inputs[0])
    for training in (False, True):
        with torch.no_grad():
            mine, theirs = (tensors_of(net.double().train(training)(IMAGES.double())) for net in (small, silent))
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * max(1.0, float(b.abs().max())))
    small.float().eval()
    assert count(small, SIZE).parameters < count(network, SIZE).parameters
    save_checkpoint(Checkpoint.of(small), tmp_path / "small.safetensors")
    write_file(small, tmp_path / "small.pt", SIZE)
    for file in ("small.safetensors", "small.pt"):
        back = load_checkpoint(tmp_path / file).build()
        assert back.architecture.chains == small.architecture.chains != {}
        assert back.architecture.numbers == small.architecture.numbers
        with torch.no_grad():
            assert all(map(torch.equal, tensors_of(back(IMAGES)), tensors_of(small(IMAGES))))


def test_a_shorter_network_is_cut_and_shortened_again() -> None:
    once = without(subject_named("yolov8n").network, ["model.model.6.m.0"])
    graph = trace(once)
    plan = Subject("shorter", once, graph).plan(2)
    small = cut(once, graph, plan)
    with torch.no_grad():
        mine, theirs = tensors_of(small(IMAGES)), tensors_of(mask(once, graph, plan)(IMAGES))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(mine, theirs, strict=True))
    twice = without(small, ["model.model.6.m.0", "model.model.4.m.1"])
    assert twice.architecture.chains == {"model.6.m": 0, "model.4.m": 1}


def test_the_reconstruction_leaves_added_columns_alone() -> None:
    """The moments of what that layer reads are those of the network with all blocks."""
    subject = subject_named("yolov8n")
    removal = removal_of(subject.network, ["model.model.6.m.0"])
    shorter = without(subject.network, removal.blocks)
    graph = trace(shorter)
    channels = Subject("shorter", shorter, graph).plan(2)
    plan = Plan.of_removal(subject.graph, graph, removal, SIZE).then(channels)
    moments = moments_of_inputs(
        subject.network, [IMAGES], lambda network, images: sum(x.square().sum() for x in tensors_of(network(images)))
    )
    small = cut(shorter, graph, channels)
    before = small.state_dict()["model.model.6.cv2.conv.weight"].clone()
    changed = reconstruct_(small, subject.network, plan, moments)
    assert "model.model.4.cv2.conv" in changed and "model.model.6.cv2.conv" not in changed
    assert torch.equal(small.state_dict()["model.model.6.cv2.conv.weight"], before)


def test_the_masks_of_zeros_follow() -> None:
    checkpoint = checkpoint_named("yolov8n")
    weight = "model.model.6.cv2.conv.weight"
    masks = torch.rand(checkpoint.tensors[weight].shape, generator=torch.Generator().manual_seed(1)) > 0.5
    small = remove(Checkpoint.of(checkpoint.build(), like=checkpoint, masks={weight: masks}), "model.model.6.m.0")
    width = masks.shape[1] // 4
    first, second, gone, last = masks.split(width, 1)
    assert torch.equal(small.masks[weight].bool(), torch.cat((first, second | gone, last), 1))


def test_the_command_removes_blocks_and_writes_the_file(tmp_path: Path, tiny_data: Path) -> None:
    save_checkpoint(checkpoint_named("yolov8n"), tmp_path / "dense.safetensors")
    images = str(tiny_data.parent / "images" / "val")
    main(["prune", "--weights", str(tmp_path / "dense.safetensors"), "--images", images, "--layers", "2",
          "--flops", "0.7", "--img", str(SIZE), "--project", str(tmp_path), "--name", "out"])  # fmt: skip
    small = load_checkpoint(tmp_path / "out" / "pruned.safetensors")
    assert sum(small.architecture.chains.values()) < 6 and small.plan["removed_blocks"]
    with torch.no_grad():
        assert all(bool(tensor.isfinite().all()) for tensor in tensors_of(small.build()(IMAGES)))


@pytest.mark.parametrize("chains", [{"model.2.m": 2}, {"model.3.m": 1}, {"model.2.m": -1}, {"model.2.m": True}, []])
def test_a_file_with_impossible_chains_is_refused(chains: object) -> None:
    architecture = checkpoint_named("yolov8n").architecture
    with pytest.raises(UserError, match="chain"):
        Ultralytics.from_dict({**architecture.to_dict(), "chains": chains}).build({})
