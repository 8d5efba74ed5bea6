"""Accuracy of cut Ultralytics networks: untrained, healed, fine-tuned, compared with cuts by Torch-Pruning.

    python benchmarks/ultralytics_training.py --weights best.safetensors --data data.yaml [--img 320]
        [--shares 0.8 0.6 0.5] [--labels none data] [--ways untrained healed finetuned] [--epochs 30] [--steps 400]
        [--healing heal_features=0] [--keep folder] [--json rows.json]

    dense             the network that is cut
    dense+epochs      trained for as many further epochs by the package's trainer: equal total epochs
    untrained         cut and repaired by `secateur.prune` with its defaults
    healed            then healed by `secateur.heal`
    finetuned         the cut network, trained by the package's trainer
    healed+finetuned  the healed network, trained by the package's trainer
    norm              cut by Torch-Pruning, the same share of every layer by group magnitude
    norm-global       the same, with all layers ranked together
    taylor            the same by first-order Taylor scores on the package's loss with labels, ranked together
    norm+finetuned, norm-global+finetuned, taylor+finetuned
                      these, trained by the package's trainer

With `--labels none`, cuts do not read the labels of the training images; healing never reads labels, trainings always
do. The last epoch of a training is evaluated, on `val` and, if it exists, on `test`. Rows in an existing JSON file are
not measured again, networks in the folder are reused, and an interrupted training resumes. Compare seconds only as
ratios on one machine.

Torch-Pruning does not support the halves of `C2f` and `C3k2`, which must have equal widths. Therefore, the first
convolution of such a block is split into two while it cuts, coupled channel to channel. Blocks with attention keep
their widths. FLOPs of all methods are counted by Secateur.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import secateur
from secateur.data.config import load_data_config
from secateur.evaluation.cost import count
from secateur.families.context import Context
from secateur.families.evaluation import usable_size
from secateur.families.evidence import FamilyEvidence
from secateur.families.outputs import tensors_of
from secateur.machine import processor
from secateur.networks.checkpoint import Checkpoint

OURS = ("untrained", "healed", "finetuned", "healed+finetuned")
TUNED = "+finetuned"
THEIRS = tuple(way + after for way in ("norm", "norm-global", "taylor") for after in ("", TUNED))
WAYS = ("dense", "dense+epochs", *OURS, *THEIRS)
STEPS, MOST = 160, 0.9
"""Steps in which Torch-Pruning removes channels, and the maximum share of a layer that it may remove."""
STATISTICS = 256
"""Images for the Taylor scores, as many as `secateur.prune` uses."""


@dataclass(frozen=True)
class Bench:
    """Settings for making and evaluating the networks.

    Attributes:
        keep: folder of the networks.
    """

    whole: Checkpoint
    options: argparse.Namespace
    size: int
    keep: Path

    def made(self, way: str, labels: str, share: float) -> Checkpoint:
        """The network of a row."""
        if way == "dense":
            return self.whole
        if way == "dense+epochs":
            return self._tuned("dense", self.whole)
        name = f"{labels}-{share:.2f}"
        if way in THEIRS:
            kind = way.removesuffix(TUNED)
            cut = self._once(f"{kind}-{share:.2f}", lambda: self._by_torch_pruning(kind, share))
            return self._tuned(f"{kind}-{share:.2f}", cut) if way.endswith(TUNED) else cut
        cut = self._once(f"cut-{name}", lambda: self._cut(labels, share))
        if way == "untrained":
            return cut
        if way == "finetuned":
            return self._tuned(f"cut-{name}", cut)
        name = "-".join((name, *self.options.healing))
        healed = self._once(f"healed-{name}", lambda: self._healed(f"healing-{name}", cut))
        return healed if way == "healed" else self._tuned(f"healed-{name}", healed)

    def _once(self, name: str, make: Any) -> Checkpoint:
        """A network by name, created if its file does not exist yet."""
        file = self.keep / f"{name}.safetensors"
        if not file.is_file():
            secateur.save(make(), file)
        return secateur.load(file)

    def _cut(self, labels: str, share: float) -> Checkpoint:
        source = {"data": self.options.data} if labels == "data" else {"images": self.options.data}
        return secateur.prune(self.whole, **source, image_size=self.size, seed=self.options.seed, flops=share)

    def _healed(self, name: str, cut: Checkpoint) -> Checkpoint:
        chosen = {key: float(value) for key, value in (part.split("=") for part in self.options.healing)}
        options = {"heal_steps": self.options.steps, "image_size": self.size, "seed": self.options.seed, **chosen}
        return secateur.heal(cut, self.whole, self.options.data, folder=self.keep / name, **options)

    def _tuned(self, name: str, start: Checkpoint) -> Checkpoint:
        """Trains a network; the last epoch is evaluated, so that no network is selected on the split on which it is
        evaluated.
        """
        return secateur.finetune(
            start,
            self.options.data,
            self.keep / f"tuned-{name}-{self.options.epochs}",
            epochs=self.options.epochs,
            batch_size=self.options.batch,
            nominal_batch=self.options.nominal_batch,
            image_size=self.size,
            seed=self.options.seed,
            val_every=0,
            workers=0,
        )

    def _by_torch_pruning(self, kind: str, share: float) -> Checkpoint:
        """Cut by Torch-Pruning in small steps until the FLOPs are reached."""
        import torch_pruning

        network: Any = self.whole.build().eval().requires_grad_(True)
        blocks = _halved(network)
        for block in blocks:
            _part_(block)
        if kind == "taylor":
            self._gradients(network)
        scores = torch_pruning.importance
        images = network.example_inputs(self.size)
        pruner = torch_pruning.pruner.BasePruner(
            network,
            *images,
            scores.GroupTaylorImportance() if kind == "taylor" else scores.GroupMagnitudeImportance(p=2),
            output_transform=lambda answers: [*tensors_of(answers), *(block.tie for block in blocks)],
            global_pruning=kind != "norm",
            pruning_ratio=1.0,
            max_pruning_ratio=MOST,
            iterative_steps=STEPS,
            ignored_layers=_ignored(network),
            round_to=4,
        )
        before, now = _flops(network, *images), 1.0
        while now > share and pruner.current_step < STEPS:
            pruner.step()
            now = _flops(network, *images) / before
            print(f"Torch-Pruning, {kind}, step {pruner.current_step}: {now:.3f} of the FLOPs", flush=True)
        for block in blocks:
            _join_(block)
        return Checkpoint.of(network, like=self.whole)

    def _gradients(self, network: nn.Module) -> None:
        """Sums the gradients of the loss on labelled training images."""
        context = Context(self.size, data=load_data_config(self.options.data), seed=self.options.seed, workers=0)
        batches, loss = FamilyEvidence(context, network).scored(network, STATISTICS, 0)
        for batch in batches:
            loss(network, batch).backward()  # type: ignore[no-untyped-call]

    def row(self, way: str, labels: str, share: float) -> dict[str, Any]:
        """All results of one network."""
        start = time.perf_counter()
        made = self.made(way, labels, share)
        took = time.perf_counter() - start
        cost, dense = (count(checkpoint.build(), self.size) for checkpoint in (made, self.whole))
        data = load_data_config(self.options.data)
        found = {
            split: secateur.evaluate(made, self.options.data, split, image_size=self.size, workers=0)
            for split in ("val", "test")
            if split in data.splits
        }
        return {
            "seconds": took,
            "gflops": cost.flops / 1e9,
            "flops": cost.flops / dense.flops,
            "parameters": cost.parameters,
            **{split: [scores.values["mAP50"], scores.value] for split, scores in found.items()},
        }


def _halved(network: nn.Module) -> list[Any]:
    """Blocks without attention whose first convolution returns two halves."""
    kinds = ("C2f", "C3k2")
    return [module for module in network.modules() if type(module).__name__ in kinds and not _attention(module)]


def _attention(module: nn.Module) -> bool:
    return any(type(inner).__name__ == "Attention" for inner in module.modules())


def _ignored(network: Any) -> list[nn.Module]:
    """Layers that Torch-Pruning must not cut: the last layers of the head, and blocks with attention except their
    outputs.
    """
    head = network.head
    layers = [head.dfl, *(branch[-1] for branches in (head.cv2, head.cv3) for branch in branches)]
    for module in network.modules():
        if type(module).__name__ in ("C2PSA", "C2f", "C3k2") and _attention(module):
            layers += [module.cv1, module.m]
    return layers


def _part_(block: Any) -> None:
    """Splits the first convolution of a block into two, and adds their outputs so that their channels are coupled."""
    block.halves = nn.ModuleList(copy.deepcopy(block.cv1) for _ in range(2))
    for half, place in zip(block.halves, (slice(None, block.c), slice(block.c, None)), strict=True):
        for module in (half.conv, half.bn):
            for name, tensor in dict(module.named_parameters()).items():
                setattr(module, name, nn.Parameter(tensor.detach()[place].clone()))
        half.bn.running_mean, half.bn.running_var = half.bn.running_mean[place], half.bn.running_var[place]
        half.conv.out_channels = half.bn.num_features = block.c

    def forward(x: Tensor) -> Tensor:
        parts = [half(x) for half in block.halves]
        block.tie = parts[0] + parts[1]
        for inner in block.m:
            parts.append(inner(parts[-1]))
        answer: Tensor = block.cv2(torch.cat(parts, 1))
        return answer

    block.forward = forward


def _join_(block: Any) -> None:
    """Merges the two convolutions again."""
    for name in ("conv", "bn"):
        whole, halves = getattr(block.cv1, name), [getattr(half, name) for half in block.halves]
        for key in dict(whole.named_parameters()):
            setattr(whole, key, nn.Parameter(torch.cat([half.get_parameter(key).detach() for half in halves])))
        for key in ("running_mean", "running_var") if name == "bn" else ():
            setattr(whole, key, torch.cat([half.get_buffer(key) for half in halves]))
    block.c = block.halves[0].conv.out_channels
    block.cv1.conv.in_channels = block.halves[0].conv.in_channels
    block.cv1.conv.out_channels = block.cv1.bn.num_features = 2 * block.c
    del block.forward, block.tie, block.halves


def _flops(network: nn.Module, images: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    return counter.get_total_flops()


def main() -> None:
    """Prints one row per method, kind of labels and share, and writes them as JSON after each."""
    options = _options()
    print(processor(), flush=True)
    whole = secateur.load(options.weights)
    bench = Bench(whole, options, usable_size(whole, options.img), options.keep)
    bench.keep.mkdir(parents=True, exist_ok=True)
    rows = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    for row in rows:
        show(row)
    for way in options.ways:
        for labels, share in _cases(way, options):
            healing = options.healing if "healed" in way else []
            case = {"way": way, "labels": labels, "share": share, "healing": healing}
            if not any(case.items() <= row.items() for row in rows):
                rows.append(case | bench.row(way, labels, share))
                show(rows[-1])
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1) + "\n")


def _cases(way: str, options: argparse.Namespace) -> list[tuple[str, float]]:
    """Kinds of labels and shares of a method."""
    if way not in (*OURS, *THEIRS):
        return [("", 1.0)]
    kinds = options.labels if way in OURS else [""]
    return [(labels, share) for labels in kinds for share in options.shares]


def show(row: dict[str, Any]) -> None:
    """Prints one line."""
    accuracy = "  ".join(
        f"{split} {row[split][0]:.3f}/{row[split][1]:.3f}" for split in ("val", "test") if split in row
    )
    title = f"{row['way']:<17} {row['labels']:<4} {row['share']:.2f} {' '.join(row['healing'])}"
    cost = f"{row['gflops']:.3f} GFLOPs ({row['flops']:.3f})  {row['parameters']:>10,} parameters"
    print(f"{title} {cost}  {accuracy}  {row['seconds']:.0f} s", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--img", type=int, default=0, help="px; 0: the size stored in the checkpoint")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.8, 0.6, 0.5])
    parser.add_argument("--labels", nargs="+", default=["none", "data"], choices=["none", "data"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--nominal-batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=400, help="healing steps")
    parser.add_argument("--healing", nargs="+", default=[], help="other healing options, such as heal_features=0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("ultralytics-training"), help="folder of the networks")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
