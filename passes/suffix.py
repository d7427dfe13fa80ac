"""The part of a masked model that its masks can change, cut off at the frontier.

Everything in front of the masks is the same for every coalition: it runs once per batch,
and the tensors that the suffix reads from there become its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx

from .graph import body_names


@dataclass(frozen=True, eq=False)
class Suffix:
    """The part behind the masks.

    ``frontier`` are the tensors of the original model that it reads; ``outputs`` the
    indices of the model's outputs that depend on the masks.
    """

    model: onnx.ModelProto
    frontier: tuple[str, ...]
    outputs: tuple[int, ...]


def suffix(model: onnx.ModelProto, masks: Sequence[str]) -> Suffix:
    """Cut a model (nodes in order) at the tensors that do not depend on its mask inputs."""
    graph = model.graph
    dependent = _dependents(graph, masks)
    constant = _constants(graph)
    nodes = _with_constants(graph, dependent, constant)
    made = {name for node in nodes for name in node.output}
    stored = _stored(graph)
    outside = _activations(graph) - made - stored - set(masks)
    frontier = tuple(dict.fromkeys(n for node in nodes for n in _reads(node) if n in outside))
    outputs = tuple(i for i, output in enumerate(graph.output) if output.name in dependent)
    return Suffix(_model(model, nodes, frontier, masks, outputs), frontier, outputs)


def _stored(graph: onnx.GraphProto) -> set[str]:
    """Names of all initializers, sparse ones included."""
    sparse = {tensor.values.name for tensor in graph.sparse_initializer}
    return {tensor.name for tensor in graph.initializer} | sparse


def _activations(graph: onnx.GraphProto) -> set[str]:
    """Graph inputs and everything that nodes make."""
    return {info.name for info in graph.input} | {n for node in graph.node for n in node.output}


def _dependents(graph: onnx.GraphProto, sources: Iterable[str]) -> set[str]:
    """All tensors that depend on the sources."""
    found = set(sources)
    for node in graph.node:
        if any(name in found for name in _reads(node)):
            found.update(filter(None, node.output))
    return found


def _constants(graph: onnx.GraphProto) -> set[str]:
    """Tensors that are computed from stored constants alone."""
    fed = {info.name for info in graph.input} - _stored(graph)
    variable = _dependents(graph, fed)
    return {name for node in graph.node for name in node.output if name not in variable}


def _with_constants(
    graph: onnx.GraphProto, dependent: set[str], constant: set[str]
) -> list[onnx.NodeProto]:
    """Dependent nodes, and the nodes that compute the constants they read, in order."""
    wanted: set[str] = set()
    nodes = []
    for node in reversed(graph.node):
        is_wanted = any(name in wanted for name in node.output)
        if is_wanted or any(name in dependent for name in node.output):
            nodes.append(node)
            wanted.update(name for name in _reads(node) if name in constant)
    return nodes[::-1]


def _reads(node: onnx.NodeProto) -> list[str]:
    """Names a node reads, in its bodies too; names made inside of them do no harm."""
    return [name for name in (*node.input, *body_names(node)) if name]


def _model(
    source: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    frontier: Sequence[str],
    masks: Sequence[str],
    outputs: Sequence[int],
) -> onnx.ModelProto:
    part = onnx.ModelProto(ir_version=source.ir_version)
    part.opset_import.extend(source.opset_import)
    part.functions.extend(source.functions)
    part.graph.name = source.graph.name
    part.graph.node.extend(nodes)
    read = {name for node in nodes for name in _reads(node)} | set(masks)
    part.graph.initializer.extend(t for t in source.graph.initializer if t.name in read)
    sparse = source.graph.sparse_initializer
    part.graph.sparse_initializer.extend(t for t in sparse if t.values.name in read)
    inputs = {info.name: info for info in source.graph.input}
    part.graph.input.extend(inputs[name] for name in masks)
    part.graph.output.extend(source.graph.output[i] for i in outputs)
    for name in frontier:
        part.graph.input.append(inputs.get(name) or onnx.ValueInfoProto(name=name))
    return part
