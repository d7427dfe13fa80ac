"""A read-only index over a model: who makes a tensor, who reads it, what is constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from onnx_shapprune.types import Array, Shape, Slot

from .shapes import TensorInfo, infer_shapes, merged
from .weights import constant_tensor, is_large, is_stub, stubbed, values

_LIST_ATTRIBUTES = ("value_float", "value_floats", "value_int", "value_ints")


STANDARD_DOMAINS = ("", "ai.onnx")
"""Two names of ONNX's own domain."""

FORM_CHANGERS = frozenset({"Identity", "Reshape", "Unsqueeze", "Squeeze", "Cast"})
"""Operators that give a constant another form and leave its values alone."""


def node_id(node: onnx.NodeProto) -> str:
    """A node's first output: unique in a graph, unlike its name, which may be missing."""
    return next((name for name in node.output if name), node.name)


def label(node: onnx.NodeProto) -> str:
    """What a person calls the node: its name, or its first output."""
    return node.name or node_id(node)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Value of a node's attribute, strings decoded."""
    for found in node.attribute:
        if found.name == name:
            value = onnx.helper.get_attribute_value(found)
            return value.decode() if isinstance(value, bytes) else value
    return default


class Graph:
    """Index over the top-level graph of ``model``; the model must not change meanwhile."""

    def __init__(
        self,
        model: onnx.ModelProto,
        inputs: Mapping[str, Shape] | None = None,
        observed: Mapping[str, Shape] | None = None,
    ) -> None:
        """Index the model.

        Args:
            model: Any model.
            inputs: Shapes to assume for graph inputs.
            observed: Shapes known from running it, for tensors that inference can't tell.
        """
        self.model = model
        self._input_shapes = inputs
        self._observed = observed or {}
        self.nodes: dict[str, onnx.NodeProto] = {node_id(n): n for n in model.graph.node}
        self.producers: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[Slot]] = defaultdict(list)
        for ident, node in self.nodes.items():
            self._index(ident, node)
        self.captured: frozenset[str] = frozenset(
            name for node in model.graph.node for name in body_names(node)
        )
        self.outputs: frozenset[str] = frozenset(o.name for o in model.graph.output)
        self.opset: int = next(
            (o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), 1
        )
        self._stored: dict[str, onnx.TensorProto] = {t.name: t for t in model.graph.initializer}
        self._arrays: dict[str, Array] = {}
        self.detached: Mapping[str, onnx.TensorProto] = {}
        """Tensors that the model has stubs for."""
        self.folds: dict[str, Array | None] = {}
        """Values of computed constants, once they were asked for."""

    def _index(self, ident: str, node: onnx.NodeProto) -> None:
        for name in filter(None, node.output):
            self.producers[name] = node
        for index, name in enumerate(node.input):
            if name:
                self.readers[name].append(Slot(ident, index))

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """What is known of the shape and dtype of every tensor."""
        found = infer_shapes(self.model, self._input_shapes)
        for name, shape in self._observed.items():
            known = found.get(name, TensorInfo(0, None))
            found[name] = TensorInfo(known.elem_type, merged(known.shape, shape))
        return found

    @cached_property
    def _declared(self) -> dict[str, TensorInfo]:
        """Like ``tensors``, by the model alone: what was bound to symbols is open."""
        return infer_shapes(self.model) if self._input_shapes is not None else self.tensors

    def declared_shape(self, tensor: str) -> Shape | None:
        """Shape as far as the model itself fixes it, for whatever it is fed."""
        info = self._declared.get(tensor)
        return info.shape if info else None

    def open_tensors(self) -> list[str]:
        """Tensors made by nodes whose rank, or a size behind the first axis, is not known."""
        return [name for name in self.producers if _is_open(self.shape(name))]

    def shape(self, tensor: str) -> Shape | None:
        """Shape as far as known; None if not even the rank is."""
        info = self.tensors.get(tensor)
        return info.shape if info else None

    def elem_type(self, tensor: str) -> int:
        """ONNX element type, or 0 if unknown."""
        info = self.tensors.get(tensor)
        return info.elem_type if info else 0

    def constant_root(self, tensor: str) -> str | None:
        """Where a constant is stored: an initializer, or the output of a Constant node.

        Looks through Identity nodes; None for a tensor that is computed.
        """
        if tensor in self._stored:
            return tensor
        node = self.producers.get(tensor)
        if node is None or node.domain not in STANDARD_DOMAINS:
            return None
        if node.op_type == "Identity":
            return self.constant_root(node.input[0])
        return tensor if _is_dense_constant(node) else None

    def constant(self, tensor: str) -> Array | None:
        """Value of a constant, or None for a tensor that is computed."""
        root = self.constant_root(tensor)
        if root is None:
            return None
        if root in self._arrays:
            return self._arrays[root]
        array = self._load(root)
        if not is_large(array.nbytes):  # a view of a file is quickly made, and keeps no memory
            self._arrays[root] = array
        return array

    def constant_shape(self, tensor: str) -> tuple[int, ...] | None:
        """Shape of a constant without reading its values, or None if it is computed."""
        root = self.constant_root(tensor)
        if root is None:
            return None
        proto = self.constant_proto(root)
        return tuple(proto.dims) if proto is not None else self._load(root).shape

    def constant_proto(self, root: str) -> onnx.TensorProto | None:
        """The stored tensor itself; None where a Constant node has a list or a number."""
        if root in self._stored:
            return self._stored[root]
        return constant_tensor(self.producers[root])

    def constant_slots(self, root: str) -> list[Slot]:
        """All node inputs that read a stored constant, through Identity nodes too."""
        found: list[Slot] = []
        for slot in self.readers.get(root, ()):
            node = self.nodes[slot.node]
            is_alias = node.op_type == "Identity" and self.constant_root(slot.node) is not None
            found += self.constant_slots(slot.node) if is_alias else [slot]
        return found

    def forms_of(self, root: str) -> list[str]:
        """Tensors that are a stored constant in another form: Identity, Reshape and such."""
        found: list[str] = []
        for slot in self.readers.get(root, ()):
            if slot.index == 0 and self.nodes[slot.node].op_type in FORM_CHANGERS:
                found += [slot.node, *self.forms_of(slot.node)]
        return found

    def is_exposed(self, tensor: str) -> bool:
        """Whether something outside of the top-level nodes sees the tensor in any form."""
        names = {tensor, *self.forms_of(tensor)}
        return not names.isdisjoint(self.captured) or not names.isdisjoint(self.outputs)

    def whole(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        """A stored tensor, or the one in memory that it is a stub of."""
        return self.detached[stubbed(tensor)] if is_stub(tensor) else tensor

    def adopt(self, tensor: onnx.TensorProto) -> None:
        """Take a constant in that was stored after the index was made."""
        self._stored[tensor.name] = tensor

    def constants(self) -> Iterator[str]:
        """Names of all stored constants of the top-level graph."""
        yield from self._stored
        for ident, node in self.nodes.items():
            if _is_dense_constant(node):
                yield ident

    def _load(self, root: str) -> Array:
        proto = self.constant_proto(root)
        if proto is not None:
            return values(self.whole(proto))
        node = self.producers[root]
        value = next(v for n in _LIST_ATTRIBUTES if (v := attribute(node, n)) is not None)
        kind = np.int64 if "int" in node.attribute[0].name else np.float32
        return np.asarray(value, dtype=kind)


def _is_open(shape: Shape | None) -> bool:
    return shape is None or any(not isinstance(dim, int) for dim in shape[1:])


def _is_dense_constant(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and any(
        a.name == "value" or a.name in _LIST_ATTRIBUTES for a in node.attribute
    )


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for found in node.attribute:
        if found.type == onnx.AttributeProto.GRAPH:
            yield found.g
        yield from found.graphs


def body_names(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the bodies of an If, Loop or Scan read, those made inside included."""
    for body in _subgraphs(node):
        yield from (output.name for output in body.output)
        for inner in body.node:
            yield from inner.input
            yield from body_names(inner)


def inner_convolutions(model: onnx.ModelProto, node: onnx.NodeProto) -> list[str]:
    """Labels of the convolutions inside a node's bodies or the local function it calls."""
    bodies = [list(body.node) for body in _subgraphs(node)]
    bodies += [
        list(f.node) for f in model.functions if (f.domain, f.name) == (node.domain, node.op_type)
    ]
    found: list[str] = []
    for inner in (n for body in bodies for n in body):
        found += [label(inner)] if "Conv" in inner.op_type else []
        found += inner_convolutions(model, inner)
    return found
