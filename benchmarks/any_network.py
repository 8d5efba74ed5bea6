"""Checks cuts of third-party networks: exactness, frozen channels, and a comparison with Torch-Pruning.

    python benchmarks/any_network.py [--networks resnet50 swin_t ...] [--timeout 180] [--memory 12] [--json FILE]

Networks of torchvision and timm (skipped if not installed) with random tensors. Each network and tool runs in a
separate process, on one image of 64 px, or of 224 px if the network requires it. Secateur: trace; Fisher scores on
random images with the sum of the squared outputs as loss; cut to 70 % of the FLOPs; difference of cut and mask relative
to the largest output; predicted cost against the cost counted on the cut network, at the traced size and at twice that
size; and the share of parameters removed if one unit per space is kept. Torch-Pruning (skipped if not installed): 30 %
of the channels of every layer by filter magnitude, and the share of parameters removed by halving every layer until
nothing changes or the network fails. Its attention layers get their number of heads, and output layers are ignored.
Seconds are from the network to the cut network, without scoring.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import resource
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from secateur.errors import UserError
from secateur.families.outputs import tensors_of
from secateur.machine import processor
from secateur.pruning.allocation import allocate
from secateur.pruning.budget import Budget
from secateur.pruning.graph import ChannelGraph, trace
from secateur.pruning.graph.trial import lively
from secateur.pruning.importance import divides_by_saving, score
from secateur.pruning.plan import Plan
from secateur.pruning.settings import Guards
from secateur.pruning.statistics import collect
from secateur.pruning.surgery import cut, mask

TORCHVISION = [
    "resnet50", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "vit_b_16",
    "swin_t", "densenet121", "regnet_y_400mf", "shufflenet_v2_x1_0", "retinanet",
]  # fmt: skip
TIMM = ["convnextv2_atto", "repvgg_a0", "ghostnetv2_100", "mobilenetv4_conv_small", "hrnet_w18_small", "fastvit_t8"]
SIDES = {"vit_b_16": 224, "maxvit_t": 224, "inception_v3": 128}
CLASSES = 1000
KEPT = 0.7
TOLERANCE = 1e-5
OUTPUT = "the network's output"


class RetinaNet(nn.Module):
    """Backbone and head of torchvision's detector, without the post-processing to boxes."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.detection import retinanet_resnet50_fpn

        whole = retinanet_resnet50_fpn(weights=None, weights_backbone=None)
        self.backbone, self.head = whole.backbone, whole.head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        answers: dict[str, Tensor] = self.head(list(self.backbone(x).values()))
        return answers


def build(name: str) -> nn.Module:
    """The network in evaluation mode, with random tensors."""
    if name == "retinanet":
        return lively(RetinaNet())
    if name in TIMM:
        import timm

        return lively(timm.create_model(name))
    import torchvision

    options: dict[str, Any] = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    if name.startswith(("deeplabv3", "lraspp", "fcn")):
        options["weights_backbone"] = None
    return lively(torchvision.models.get_model(name, **options))


def images(count: int, side: int) -> Tensor:
    """Random images float32 [count, 3, side, side]."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def parameters_of(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def secateur_row(network: nn.Module, side: int) -> dict[str, Any]:
    """The results of Secateur on a network."""
    image = images(1, side)
    start = time.perf_counter()
    graph = trace(network, torch.zeros_like(image))
    traced = time.perf_counter() - start
    row: dict[str, Any] = {"units": graph.units, "trace_seconds": traced, "frozen": frozen(graph)}
    if graph.units == 0:
        return row
    row["most_removed"], row["most_error"] = most(network, graph, image)
    statistics = collect(network, graph, [images(2, side)], loss)
    scores = score("fisher", graph, statistics)
    start = time.perf_counter()
    guards = Guards(min_share=0.01, round_to=1)
    per_saving = divides_by_saving("fisher", "auto")
    plan = allocate(graph, scores, Budget("flops", KEPT), guards, criterion="fisher", per_saving=per_saving)
    small = cut(network, graph, plan)
    row["seconds"] = traced + time.perf_counter() - start
    row["flops"] = plan.after.flops / plan.before.flops
    row["parameters"] = plan.after.parameters / plan.before.parameters
    row["error"] = difference(small, mask(network, graph, plan), images(2, side))
    row["moved"] = difference(small, network, images(2, side))
    return row | prices(graph, plan, small, side)


def loss(network: nn.Module, batch: Tensor) -> Tensor:
    """The sum of the squared outputs for a batch float32 [B, 3, H, W]."""
    return torch.stack([output.square().sum() for output in tensors_of(network(batch))]).sum()


def most(network: nn.Module, graph: ChannelGraph, image: Tensor) -> tuple[float, float]:
    """Share of the parameters removed if one unit per space is kept, and the difference of cut and mask. `image` is
    float32 [1, 3, H, W].
    """
    keep = np.zeros(graph.units, dtype=bool)
    keep[[space.units[0] for space in graph.spaces]] = True
    plan = Plan.of(graph, keep)
    small = cut(network, graph, plan)
    share = 1 - parameters_of(small) / parameters_of(network)
    return share, difference(small, mask(network, graph, plan), image)


def difference(first: nn.Module, second: nn.Module, batch: Tensor) -> float:
    """The largest difference of any output, relative to its largest value. `batch` is float32 [B, 3, H, W]."""
    with torch.no_grad():
        pairs = zip(tensors_of(first(batch)), tensors_of(second(batch)), strict=True)
        return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def prices(graph: ChannelGraph, plan: Plan, small: nn.Module, side: int) -> dict[str, bool]:
    """Whether the predicted parameters and FLOPs equal those of the cut network at the traced size, and the FLOPs at
    twice that size.
    """
    right = plan.after.parameters == parameters_of(small) and plan.after.flops == counted(small, side)
    try:
        price = graph.price(plan.keep(graph), 2 * side)
    except UserError:  # the network accepts no other size, or cannot be priced at one
        return {"price_exact": right}
    return {"price_exact": right, "price_exact_at_twice": price.flops == counted(small, 2 * side)}


class Counter(TorchFunctionMode):
    """Counts multiply-adds of convolutions and linear layers, as modules or functions; torch's attention is one
    function.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in (F.linear, torch.conv1d, torch.conv2d):
            weight = args[1] if len(args) > 1 else (kwargs or {})["weight"]
            self.total += output.numel() * weight[0].numel()
        return output


def counted(network: nn.Module, side: int) -> int:
    """FLOPs of one call with one image."""
    with torch.no_grad(), Counter() as counter:
        network(images(1, side))
    return 2 * counter.total


def frozen(graph: ChannelGraph) -> list[dict[str, Any]]:
    """By cause: how many channels of how many layers cannot be removed, and the first of these layers."""
    causes = defaultdict(list)
    for entry in graph.frozen:
        causes[entry.by].append(entry)
    total = sum(len(units) for units in graph.emitted.values())
    return [
        {
            "by": by,
            "channels": sum(entry.channels for entry in entries),
            "of": total,
            "layers": len(entries),
            "first": entries[0].layer,
        }
        for by, entries in causes.items()
    ]


def torch_pruning_row(network: nn.Module, side: int) -> dict[str, Any]:
    """The results of Torch-Pruning on a network; failures are recorded as text."""
    row: dict[str, Any] = {}
    small = copy.deepcopy(network)
    start = time.perf_counter()
    row["failure"] = halted(small, side, 0.3)
    row["seconds"] = time.perf_counter() - start
    row["parameters"] = parameters_of(small) / parameters_of(network)
    smallest, left = copy.deepcopy(network), parameters_of(network)
    while True:
        row["most_failure"] = halted(smallest, side, 0.5)
        if row["most_failure"] or parameters_of(smallest) == left:
            break
        left = parameters_of(smallest)
    row["most_removed"] = 1 - left / parameters_of(network)
    return row


def halted(network: nn.Module, side: int, ratio: float) -> str:
    """Removes a share of every layer's channels in place. Returns the failure as text, or ""."""
    import torch_pruning as tp

    heads = {module: module.num_heads for module in network.modules() if isinstance(module, nn.MultiheadAttention)}
    heads |= {
        module.qkv: module.num_heads
        for module in network.modules()
        if isinstance(getattr(module, "qkv", None), nn.Linear) and isinstance(getattr(module, "num_heads", None), int)
    }
    answers = [
        module
        for name, module in network.named_modules()
        if name.endswith(("cls_logits", "bbox_reg"))
        or (isinstance(module, nn.Linear) and module.out_features == CLASSES)
    ]
    image = images(1, side)
    with torch.no_grad():
        before = [tensor.shape for tensor in tensors_of(network(image))]
    try:
        pruner = tp.pruner.BasePruner(
            network,
            image,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=answers,
            num_heads=heads,
            in_channel_groups={},
            out_channel_groups={},
        )
        pruner.step()
    except Exception as error:  # any failure is a result
        return f"pruning fails: {first_line(error)}"
    try:
        with torch.no_grad():
            after = [tensor.shape for tensor in tensors_of(network(image))]
    except Exception as error:
        return f"the cut network fails: {first_line(error)}"
    return "" if before == after else "the outputs have other shapes"


def first_line(error: Exception) -> str:
    """The class of an exception and the start of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}"


TOOLS = {"secateur": secateur_row, "torch_pruning": torch_pruning_row}


def measured(name: str, tool: str, memory: float) -> dict[str, Any]:
    """The results of a tool on a network, with at most `memory` GB."""
    resource.setrlimit(resource.RLIMIT_AS, (int(memory * 1e9), int(memory * 1e9)))
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    side = SIDES.get(name, 64)
    network = build(name)
    row: dict[str, Any] = {"side": side, "dense_parameters": parameters_of(network)}
    try:
        return row | TOOLS[tool](network, side)
    except Exception as error:  # any failure is a result
        return row | {"failure": first_line(error)}


def in_a_process(name: str, tool: str, options: argparse.Namespace) -> dict[str, Any]:
    """The same from a separate process, which may fail as a whole."""
    command = [sys.executable, __file__, "--networks", name, "--tool", tool, "--memory", str(options.memory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout, check=False)
    except subprocess.TimeoutExpired:
        return {"failure": f"not completed after {options.timeout:g} s"}
    if done.returncode:
        return {"failure": (done.stderr.strip().splitlines() or [f"exited with {done.returncode}"])[-1]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


HEADER = (
    "| network | M parameters | FLOPs kept | parameters kept | cut - mask | price | s | removable at most "
    "| Torch-Pruning: at most | fails | s |\n|---|---:|---:|---:|---:|---|---:|---:|---:|---|---:|"
)


def line(row: dict[str, Any]) -> str:
    """One network as a row of the table."""
    mine, theirs = row["secateur"], row.get("torch_pruning", {})
    dense = mine.get("dense_parameters", theirs.get("dense_parameters", 0))
    cells = [row["network"], f"{dense / 1e6:.2f}"]
    if "error" in mine:
        cells += [percent(mine["flops"]), percent(mine["parameters"]), f"{mine['error']:.0e}"]
        twice = "" if mine.get("price_exact_at_twice", True) else f", **wrong** at {2 * mine['side']} px"
        cells += [("exact" if mine["price_exact"] else "**wrong**") + twice, f"{mine['seconds']:.1f}"]
    else:
        cells += ["fails" if "failure" in mine else "no unit", "", "", "", ""]
    cells.append(percent(mine["most_removed"]) if "most_removed" in mine else "")
    if "seconds" in theirs:
        fails = [word for word, key in (("at 30 %", "failure"), ("halved", "most_failure")) if theirs[key]]
        cells += [percent(theirs["most_removed"]), ", ".join(fails) or "no", f"{theirs['seconds']:.1f}"]
    else:
        cells += ["", "yes" if theirs else "", ""]
    return "| " + " | ".join(cells) + " |"


def percent(share: float) -> str:
    """0.123 -> "12.3 %"."""
    return f"{100 * share:.1f} %"


def remarks(row: dict[str, Any]) -> list[str]:
    """Frozen channels other than those of the output layers, and failures as text."""
    found = []
    for entry in row["secateur"].get("frozen", []):
        if entry["by"] != OUTPUT:
            found.append(
                f"{entry['channels']:,} of {entry['of']:,} channels, in {entry['layers']} layers "
                f"({entry['first']}, ...), frozen by {entry['by']}"
            )
    for tool, name in (("secateur", "Secateur"), ("torch_pruning", "Torch-Pruning")):
        for key, words in (("failure", ""), ("most_failure", ", halved")):
            failure = row.get(tool, {}).get(key)
            if failure:
                found.append(f"{name}{words}: {failure}")
    return [f"- {row['network']}: {remark}" for remark in found]


def main() -> int:
    """Prints the table. Returns 1 if a cut differs from its mask (or equals the dense network), or a cost is wrong."""
    options = _options()
    if options.tool:
        print(json.dumps(measured(options.networks[0], options.tool, options.memory)))
        return 0
    names, tools = options.networks, [tool for tool in TOOLS if tool == "secateur" or find_spec(tool)]
    if find_spec("timm") is None and any(name in TIMM for name in names):
        print(f"timm is not installed; skipping {', '.join(name for name in names if name in TIMM)}.")
        names = [name for name in names if name not in TIMM]
    print(processor())
    print(HEADER, flush=True)
    rows = []
    for name in names:
        rows.append({"network": name} | {tool: in_a_process(name, tool, options) for tool in tools})
        print(line(rows[-1]), flush=True)
    print("\n".join(remark for row in rows for remark in remarks(row)))
    if options.json:
        packages = ("torch", "torchvision", "timm", "torch-pruning")
        versions = {name: metadata.version(name) for name in packages if find_spec(name.replace("-", "_"))}
        result = {"processor": processor(), "versions": versions, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(any(broken(row["secateur"]) for row in rows))


def broken(row: dict[str, Any]) -> bool:
    """Whether a cut differs from its mask, equals the dense network, or has a wrong predicted cost."""
    errors = [row[key] for key in ("error", "most_error") if key in row]
    alike = row.get("moved", 1.0) < 100 * TOLERANCE
    exact = row.get("price_exact", True) and row.get("price_exact_at_twice", True)
    return alike or not exact or not all(error <= TOLERANCE for error in errors)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--networks", nargs="+", default=[*TORCHVISION, *TIMM], help=("others of torchvision are accepted too")
    )
    parser.add_argument("--timeout", type=float, default=180, help="seconds for one network and tool")
    parser.add_argument("--memory", type=float, default=12, help="GB of address space for one network and tool")
    parser.add_argument("--json", type=Path, help="JSON file to write")
    parser.add_argument("--tool", choices=TOOLS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
