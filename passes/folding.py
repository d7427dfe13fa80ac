"""Values of tensors that exporters compute from constants instead of storing them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx

from onnx_shapprune.types import Array, Shape

from .graph import STANDARD_DOMAINS, Graph, attribute, node_id
from .weights import constant_tensor, in_memory, is_reference

_REFERENCE_HAS_DEQUANTIZE = 19
"""Since this opset."""

_MAX_NODES = 256
_MAX_ELEMENTS = 4096
_MAX_STORED = 2**28
"""Elements of one tensor: what is computed from constants is small, and kernels fit in memory."""

_MAKERS = ("Conv", "Gemm", "MatMul", "If", "Loop", "Scan")
_CAST_LIKE = "CastLike"
_NOT_PURE = ("Random", "Multinomial", "Bernoulli", "Dropout", "If", "Loop", "Scan")


def folded(graph: Graph, tensor: str, *, limited: bool = True) -> Array | None:
    """Value of a tensor that depends on (if limited: small) stored constants only, else None."""
    if tensor not in graph.folds:
        nodes = ancestors(graph, tensor, _MAX_ELEMENTS if limited else _MAX_STORED)
        if not nodes:
            return None
        graph.folds[tensor] = _evaluated(graph, nodes, tensor)
    return graph.folds[tensor]


def _evaluated(graph: Graph, nodes: list[onnx.NodeProto], tensor: str) -> Array | None:
    from onnx.reference import ReferenceEvaluator

    try:
        model, old = _model(graph, nodes, tensor), graph.opset < _REFERENCE_HAS_DEQUANTIZE
        evaluator = ReferenceEvaluator(model, new_ops=_older_operators() if old else None)
        with warnings.catch_warnings(action="ignore"):  # values may be odd, that is no news here
            values: Any = evaluator.run([tensor], {})
    except Exception:  # the reference has gaps; then the value stays unknown
        return None
    value: Array = values[0]
    return value


def _older_operators() -> list[Any]:
    """DequantizeLinear as it was before the reference knows it; it computed the same."""
    from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_19

    return [type("DequantizeLinear", (DequantizeLinear_19,), {"op_domain": ""})]


def ancestors(graph: Graph, tensor: str, most: int = _MAX_STORED) -> list[onnx.NodeProto]:
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
            pending += [source for source in _read_values(graph, node) if source]
    return [node for ident, node in graph.nodes.items() if ident in found]


def _read_values(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """Inputs whose values matter, not just their type or shape."""
    if node.op_type == _CAST_LIKE:
        return [node.input[0]]
    return [] if _fixed_sizes(graph, node) is not None else list(node.input)


def _fixed_sizes(graph: Graph, node: onnx.NodeProto) -> Array | None:
    """What a Shape gives of a tensor that has always the same size and no channels."""
    if node.op_type != "Shape" or graph.constant_root(node.input[0]) is not None:
        return None
    sizes = graph.declared_shape(node.input[0]) or (None,)
    taken = sizes[attribute(node, "start", 0) : attribute(node, "end")]
    if any(not isinstance(size, int) for size in taken) or _has_channels(graph, node.input[0]):
        return None
    return np.asarray(taken, np.int64)


def _has_channels(graph: Graph, tensor: str) -> bool:
    """Whether a kernel is among what a tensor is computed from; also said of very many nodes."""
    seen: set[str] = set()
    pending = [tensor]
    while pending:
        node = graph.producers.get(pending.pop())
        if node is None or node_id(node) in seen:
            continue
        seen.add(node_id(node))
        if len(seen) > _MAX_NODES or _makes_channels(node):
            return True
        pending += [name for name in node.input if name]
    return False


def _makes_channels(node: onnx.NodeProto) -> bool:
    kernel = any(part in node.op_type for part in _MAKERS)
    return kernel or node.domain not in STANDARD_DOMAINS


def _can_fold(graph: Graph, node: onnx.NodeProto, most: int) -> bool:
    if node.domain not in STANDARD_DOMAINS or node.op_type.startswith(_NOT_PURE):
        return False
    if node.op_type == _CAST_LIKE and not graph.elem_type(node.output[0]):
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
    bodies = graph.bodies.values()
    stored = [t for body in bodies for t in body.initializer if t.name in names]
    stored = [in_memory(graph.whole(tensor)) for tensor in stored]
    nodes = [_with_its_values(graph, node) for node in nodes]
    result = onnx.helper.make_tensor_value_info(tensor, graph.elem_type(tensor), None)
    plain = [_plain(graph, node) for node in nodes]
    part = onnx.helper.make_graph(plain, "constants", [], [result], stored)
    opsets = list(graph.model.opset_import)
    return onnx.helper.make_model(part, opset_imports=opsets, ir_version=8)


def _plain(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto:
    """The node without inputs of which only the type or the shape matters."""
    if node.op_type == _CAST_LIKE:
        kind = graph.elem_type(node.output[0])
        return onnx.helper.make_node("Cast", node.input[:1], node.output, to=kind)
    sizes = _fixed_sizes(graph, node)
    if sizes is None:
        return node
    value = onnx.numpy_helper.from_array(sizes)
    return onnx.helper.make_node("Constant", [], node.output, value=value)


def _with_its_values(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto:
    """The node itself, or a Constant that holds what the model leaves in a file."""
    tensor = constant_tensor(node)
    if tensor is None or not is_reference(tensor):
        return node
    return onnx.helper.make_node("Constant", [], node.output, value=in_memory(graph.whole(tensor)))
