"""The tail of an ONNX graph: what stands behind the last convolutions, sigmoid and decoding."""

from __future__ import annotations

from typing import Any


def tail_of(graph: Any, *, heads: bool) -> list[str]:
    """Names of the nodes from the outputs back to the last convolutions.

    Args:
        graph: an `onnx.ModelProto` whose nodes have names.
        heads: with these convolutions.
    """
    makers = {output: node for node in graph.graph.node for output in node.output}
    waiting = [output.name for output in graph.graph.output]
    found: dict[str, None] = {}
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in found:
            continue
        if node.op_type in ("Conv", "QLinearConv"):
            if heads:
                found[node.name] = None
            continue
        found[node.name] = None
        waiting += list(node.input)
    return list(found)
