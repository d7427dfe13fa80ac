"""A body of an If, Loop or Scan as a model of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from .bodies import bodies
from .graph import node_id


@dataclass(frozen=True, eq=False)
class InnerModel:
    """A body that is fed what it reads from outside.

    ``captured`` are those of its inputs that something outside makes; the others are the
    body's own.
    """

    model: onnx.ModelProto
    captured: tuple[str, ...]


def inner_model(model: onnx.ModelProto, scope: str) -> InnerModel:
    """The body that :class:`~.graph.Graph` calls ``scope``, cut out of the model.

    Raises:
        KeyError: There is no such body.
    """
    body = dict(_scopes(model.graph))[scope]
    read, made = set(_read(body)), set(_made(body))
    stored = [tensor for tensor in model.graph.initializer if tensor.name in read - made]
    captured = sorted(read - made - {tensor.name for tensor in stored})
    part = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    part.graph.CopyFrom(body)
    part.graph.name = body.name or "body"
    part.graph.initializer.extend(stored)
    part.graph.input.extend(onnx.ValueInfoProto(name=name) for name in captured)
    return InnerModel(part, tuple(captured))


def _scopes(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    for node in graph.node:
        yield from ((f"{node_id(node)}.{name}", body) for name, body in bodies(node))


def _read(body: onnx.GraphProto) -> Iterator[str]:
    """Names that a body and the bodies in it read."""
    yield from (output.name for output in body.output)
    for node in body.node:
        yield from filter(None, node.input)
        for _, inner in bodies(node):
            yield from _read(inner)


def _made(body: onnx.GraphProto) -> Iterator[str]:
    """Names that come into being in a body and the bodies in it."""
    yield from (info.name for info in (*body.input, *body.initializer))
    for node in body.node:
        yield from filter(None, node.output)
        for _, inner in bodies(node):
            yield from _made(inner)
