"""The bodies of If, Loop and Scan nodes: one walk for all who look into them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def bodies(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The bodies of an If, Loop or Scan, each with the name of its attribute."""
    for found in node.attribute:
        if found.type == onnx.AttributeProto.GRAPH:
            yield found.name, found.g
        yield from ((f"{found.name}{i}", body) for i, body in enumerate(found.graphs))


def nested(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all bodies in it, each in front of its own bodies."""
    yield graph
    for node in graph.node:
        for _, body in bodies(node):
            yield from nested(body)
