"""Values of tensors that exporters compute from constants instead of storing them."""

from __future__ import annotations

import sys
from typing import Any

import onnx

from onnx_shapprune.types import Array, Shape

from .graph import STANDARD_DOMAINS, Graph, node_id

_MAX_NODES = 64
_MAX_ELEMENTS = 4096
_NOT_PURE = ("Random", "Multinomial", "Bernoulli", "Dropout", "If", "Loop", "Scan")


def folded(graph: Graph, tensor: str, *, limited: bool = True) -> Array | None:
    """Value of a tensor that depends on (if limited: small) stored constants only, else None."""
    nodes = _ancestors(graph, tensor, _MAX_ELEMENTS if limited else sys.maxsize)
    if not nodes:
        return None
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(_model(graph, nodes, tensor))
        values: Any = evaluator.run([tensor], {})
    except Exception:  # the reference has gaps; then the value stays unknown
        return None
    value: Array = values[0]
    return value


def _ancestors(graph: Graph, tensor: str, most: int) -> list[onnx.NodeProto]:
    """All nodes that a tensor depends on, in graph order; none if one can't be folded."""
    found: dict[str, onnx.NodeProto] = {}
    pending = [tensor]
    while pending:
        name = pending.pop()
        if graph.constant_root(name) == name and name not in graph.producers:
            continue
        node = graph.producers.get(name)
        if node is None or not _can_fold(graph, node, most) or len(found) > _MAX_NODES:
            return []
        if node_id(node) not in found:
            found[node_id(node)] = node
            pending += [source for source in node.input if source]
    return [node for ident, node in graph.nodes.items() if ident in found]


def _can_fold(graph: Graph, node: onnx.NodeProto, most: int) -> bool:
    if node.domain not in STANDARD_DOMAINS or node.op_type.startswith(_NOT_PURE):
        return False
    shapes = [graph.constant_shape(name) for name in node.input if name]
    shapes += [_known(graph.shape(name)) for name in node.output if name]
    return all(_size(shape) <= most for shape in shapes if shape is not None)


def _known(shape: Shape | None) -> tuple[int, ...] | None:
    """A shape, if all its sizes are known."""
    sizes = tuple(size for size in shape or () if isinstance(size, int))
    return sizes if shape is not None and len(sizes) == len(shape) else None


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for dim in shape:
        size *= dim
    return size


def _model(graph: Graph, nodes: list[onnx.NodeProto], tensor: str) -> onnx.ModelProto:
    names = {name for node in nodes for name in node.input}
    stored = [t for t in graph.model.graph.initializer if t.name in names]
    result = onnx.helper.make_tensor_value_info(tensor, graph.elem_type(tensor), None)
    part = onnx.helper.make_graph(nodes, "constants", [], [result], stored)
    opsets = list(graph.model.opset_import)
    return onnx.helper.make_model(part, opset_imports=opsets, ir_version=8)
