"""Tracing: sends channel ids through the exported graph of a network; tied ids become units."""

from __future__ import annotations

import math
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import Node
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from secateur.errors import UserError
from secateur.layers import NormsPass, is_attention
from secateur.pruning.graph.assembly import assembled
from secateur.pruning.graph.channels import ChannelGraph
from secateur.pruning.graph.flow import Cause, Fixed, Flow, Operation
from secateur.pruning.graph.inputs import Call, everything, example_inputs_of, image_sides, strides_to_try
from secateur.pruning.graph.operations import operation_of
from secateur.pruning.graph.pricing import Sides, Work
from secateur.pruning.graph.unchanged import unchanged
from secateur.pruning.latency import TracedOperation

Programs = tuple[torch.export.ExportedProgram, ...]
"""The network exported in evaluation mode and, if it differs, in training mode."""
Shapes = dict[str, list[tuple[tuple[int, ...], tuple[int, ...]]]]


_KNOWN: OrderedDict[Hashable, ChannelGraph] = OrderedDict()
_MOST_KNOWN = 16  # a graph of yolov5x takes 5 MB


@runtime_checkable
class WithStructure(Protocol):
    """A network that provides a key of everything that its graph depends on."""

    def structure(self) -> Hashable:
        """A key; equal for networks that differ only in the values of their tensors."""
        ...


def trace(network: nn.Module, *example_inputs: Any, answers: Callable[[Any], Any] | None = None) -> ChannelGraph:
    """Finds the units of a network by sending channel ids through it; the network is not changed.

    If the network provides its structure, the graphs of the last few structures are cached. A network with hooks is
    always traced again, because hooks can change outputs.

    Args:
        network: any module that `torch.export` supports.
        example_inputs: inputs of one call with a batch of one: tensors, or lists and mappings of tensors. Default: the
            example inputs of the network (`example_inputs`), or one image [1, 3, 64, 64].
        answers: takes the outputs of the network and returns the ones whose channels must stay. Default: all outputs.
            Set it, for example, for a head that also returns its inputs, which would otherwise be frozen.

    Raises:
        UserError: the network cannot be traced.
    """
    if example_inputs or answers is not None or not isinstance(network, WithStructure) or _has_hooks(network):
        return _trace(network, example_inputs, answers or everything)
    structure = network.structure()
    if structure not in _KNOWN:
        _KNOWN[structure] = _trace(network, (), everything)
    _KNOWN.move_to_end(structure)
    if len(_KNOWN) > _MOST_KNOWN:
        _KNOWN.popitem(last=False)
    return _KNOWN[structure]


def _has_hooks(network: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def _trace(network: nn.Module, example_inputs: tuple[Any, ...], answers: Callable[[Any], Any]) -> ChannelGraph:
    """Traces the network in eval mode, independent of its current mode."""
    with unchanged(network):
        network.eval()
        inputs = example_inputs_of(network, example_inputs)
        call, sides = Call(inputs, answers), image_sides(inputs)
        programs = _programs(network, call)
        flow, _ = _flow(network, call, programs)
        uncounted = {
            f"{name}.{tensor}"
            for name, module in network.named_modules()
            if is_attention(module)
            for tensor, _ in module.named_parameters()
        }
        counted = [operation for operation in flow.operations if operation.weight not in uncounted]
        work = _work(network, counted, inputs[0], sides) if sides else [Work(operation) for operation in counted]
    return assembled(network, partial(_flow, network, call, programs), work, call)


def _flow(
    network: nn.Module, call: Call, programs: Programs, inside_heads: frozenset[str] = frozenset()
) -> tuple[Flow, list[TracedOperation]]:
    """Sends ids through the exported network, and collects its operations, whose units are still ids.

    Args:
        inside_heads: see `Flow`.
    """
    flow, operations = Flow({}, dict(network.named_modules()), inside_heads), list[TracedOperation]()
    _follow(flow, programs[0], call, operations)
    for program in programs[1:]:
        _follow_training(flow, program, call)
    for (tensor, _), ids in flow.axes.items():
        if tensor in flow.touched:
            cause = flow.touched[tensor]
            flow.freeze(ids, replace(cause, what=f"{cause.what}, which reads {tensor} itself"))
    return flow, operations


def _programs(network: nn.Module, call: Call) -> Programs:
    """The network exported in evaluation mode and, if that leaves parameters unread, in training mode."""
    try:
        program = _exported(network, call)
    except Exception as error:  # torch.export raises many exception types
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"The network cannot be traced ({first_line}). "
            "Pruning needs a network whose control flow does not depend on the data."
        ) from error
    unread = (node for node in program.graph.nodes if node.op == "placeholder" and not node.users)
    if not any(node.name in program.graph_signature.inputs_to_parameters for node in unread):
        return (program,)
    training = _exported_in_training(network, call)
    return (program,) if training is None else (program, training)


def _exported(network: nn.Module, call: Call) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():  # `unchanged` undoes these assignments
        warnings.filterwarnings("ignore", "The tensor attributes? .* assigned during export", UserWarning)
        return torch.export.export(network, call.inputs, strict=False)


def _exported_in_training(network: nn.Module, call: Call) -> torch.export.ExportedProgram | None:
    """Norms and dropout stay in evaluation mode, because a batch of one image has no statistics. None: it cannot be
    traced."""
    for module in network.modules():
        module.training = not isinstance(module, (_NormBase, _DropoutNd))
    try:
        return _exported(network, call)
    except Exception:  # then only the graph of evaluation is used
        return None
    finally:
        network.eval()


def _follow(flow: Flow, program: torch.export.ExportedProgram, call: Call, operations: list[TracedOperation]) -> None:
    """Sends ids through a graph."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    nodes = list(program.graph.nodes)
    known = {node: names[node.name] for node in nodes if node.op == "placeholder" and node.name in names}
    flow.names.update(known)
    flow.sources.update(known)
    for node in nodes:
        if node.op == "placeholder" and node.name in signature.user_inputs:
            flow.values[node] = Fixed(Cause("the network's input"))
        elif node.op == "call_function":
            flow.visit(node)
            operation = operation_of(flow, node)
            operations += [] if operation is None else [operation]
        elif node.op == "output":
            flow.freeze_all(_answering(program, call), Cause("the network's output"))


def _follow_training(flow: Flow, program: torch.export.ExportedProgram, call: Call) -> None:
    """Adds the tensors that only training reads, so that a cut narrows them; channels of training-only layers are
    frozen."""
    emitted, operations = set(flow.emitted), list(flow.operations)
    _follow(flow, program, call, [])
    flow.operations[:] = operations
    for layer in flow.emitted.keys() - emitted:
        flow.freeze(flow.emitted[layer], Cause("a layer that runs only in training", layer))


def _answering(program: torch.export.ExportedProgram, call: Call) -> list[Node]:
    """The nodes of the outputs whose channels must stay."""
    nodes = {node.name: node for node in program.graph.nodes}
    outputs = [nodes.get(str(output), output) for output in program.graph_signature.user_outputs]
    leaves = pytree.tree_leaves(call.answers(pytree.tree_unflatten(outputs, program.call_spec.out_spec)))
    return [leaf for leaf in leaves if isinstance(leaf, Node)]


def _shapes(network: nn.Module, image: Tensor, restore: Callable[[], None]) -> Shapes | None:
    """Input and output shape of every call of every module for an image, without arithmetic if possible.

    None: the network does not accept images of this size.

    Args:
        restore: undoes changes that a call makes to the network, such as a cached map that does not fit the next image.
    """
    shapes: Shapes = defaultdict(list)

    def watch(name: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, (tuple, list)) else output
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                shapes[name].append((tuple(inputs[0].shape), tuple(output.shape)))

        return note

    tensors = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
    }

    def watched() -> list[RemovableHandle]:
        return [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]

    handles = watched()
    try:
        with torch.no_grad(), NormsPass():
            try:
                functional_call(network, tensors, (torch.empty_like(image, device="meta"),))
            except RuntimeError:  # a tensor that is neither parameter nor buffer is not on the meta device
                restore()
                handles += watched()
                shapes.clear()
                own = {name: tensor.clone() for name, tensor in [*network.named_parameters(), *network.named_buffers()]}
                functional_call(network, own, (torch.zeros_like(image),))
    except Exception:  # the code of the network may raise anything at an unsupported size
        return None
    finally:
        for handle in handles:
            handle.remove()
        restore()
    return shapes


def _work(network: nn.Module, operations: list[Operation], image: Tensor, traced: Sides) -> list[Work]:
    """The operations with their positions at any image size, derived from calls at a few sizes."""
    with unchanged(network) as restore:

        def shapes_at(sides: Sides) -> Shapes | None:
            return _shapes(network, image.new_empty((*image.shape[:2], *sides)), restore)

        return _grown(operations, strides_to_try(network), traced, shapes_at)


def _grown(
    operations: list[Operation],
    strides: Sequence[int],
    traced: Sides,
    shapes_at: Callable[[Sides], Shapes | None],
) -> list[Work]:
    """The operations with their positions at four image sizes: two squares, a tall and a wide image.

    For a network that does not report strides, increasing strides are tried until the positions at a third square are
    predicted correctly: between sizes that are not multiples of the stride, maps grow unevenly. A network that accepts
    only the traced size has only the traced positions. So has an operation whose positions cannot be read from modules,
    such as windows that a function pads.
    """
    known = _known_from_modules(operations, traced, shapes_at)

    def measured(height: int, width: int) -> list[tuple[int, ...]] | None:
        sides = height, width
        if sides == traced:
            return [operation.positions for operation in operations]
        shapes = shapes_at(sides)
        return None if shapes is None else [_positions(operation, shapes, traced, sides) for operation in operations]

    for step in strides:
        small, large = 2 * step, 3 * step
        first, second = measured(small, small), measured(large, large)
        if first is None or second is None:
            continue
        tall, wide = measured(large, small), measured(small, large)
        if tall is None or wide is None:
            tall = wide = [()] * len(operations)
        seen = map(_sides, zip(first, tall, wide, second, strict=True))
        work = [Work(operation, (small, large), found) for operation, found in zip(operations, seen, strict=True)]
        third = measured(4 * step, 4 * step) if len(strides) > 1 else None
        expected = [entry.positions((4 * step, 4 * step)) for entry in work]
        if third is None or expected == [math.prod(positions) for positions in third]:
            return [entry if sure else Work(entry.operation) for entry, sure in zip(work, known, strict=True)]
    return [Work(operation) for operation in operations]


def _known_from_modules(
    operations: list[Operation], traced: Sides, shapes_at: Callable[[Sides], Shapes | None]
) -> list[bool]:
    """Which operations have the positions that modules report, at the size where both are available."""
    if all(len(operation.positions) > 1 for operation in operations):
        return [True] * len(operations)
    shapes = shapes_at(traced)
    if shapes is None:
        return [len(operation.positions) > 1 for operation in operations]
    return [_positions(operation, shapes, traced, traced) == operation.positions for operation in operations]


def _positions(operation: Operation, shapes: Shapes, traced: Sides, sides: tuple[int, ...]) -> tuple[int, ...]:
    """Positions of an operation for an image of these sides, from the module that owns its weight."""
    owner = operation.weight.rpartition(".")[0]
    if len(operation.positions) > 1:
        if not shapes.get(owner):
            grown = zip(operation.positions, sides, traced, strict=True)
            return tuple(count * side // old for count, side, old in grown)
        # Modules that are called more than once are visited in the same order here and in the trace.
        before, after = shapes[owner].pop(0)
        return before[2:] if operation.transposed else after[2:]
    # A linear layer that is called as a function has the rows of the nearest enclosing module that was called.
    while owner and owner not in shapes:
        owner = owner.rpartition(".")[0]
    rows = operation.positions[0] * math.prod(sides) // math.prod(traced)
    return (math.prod(shapes[owner][0][1][:-1]) if shapes.get(owner) else rows,)


def _sides(seen: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Rows that are a flattened square map at both square sizes, as the sides of that map; other positions
    unchanged."""
    if len(seen[0]) == 2:
        return seen
    rows = [math.prod(found) for found in seen]
    small, large = math.isqrt(rows[0]), math.isqrt(rows[3])
    if not all(seen):
        map_at_both = rows[0] == small**2 and rows[3] == large**2
        return ((small, small), (), (), (large, large)) if map_at_both else seen
    if rows != [small**2, large * small, small * large, large**2]:
        return seen
    return (small, small), (large, small), (small, large), (large, large)
