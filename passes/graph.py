"""A read-only index over a model: who makes a tensor, who reads it, what is constant."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from onnx_shapprune.types import Array, Shape, Slot

from .bodies import bodies
from .functions import flattened
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
            return value.decode(errors="replace") if isinstance(value, bytes) else value
    return default


Nodes = Iterable[onnx.NodeProto]

TOP = ""
"""Scope of the nodes that are in no body."""


class Graph:
    """Index over ``model``, the source with its local functions written out.

    It must not change meanwhile. The bodies of top-level If, Loop and Scan nodes are part of it:
    their nodes stand in front of the node that they belong to, in a *scope* of their own. A body
    that can't be indexed with the others (``closed``: why) is looked at from outside only.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        inputs: Mapping[str, Shape] | None = None,
        observed: Mapping[str, Shape] | None = None,
        closed: Mapping[str, str] | None = None,
    ) -> None:
        """Index the model.

        Args:
            model: Any model.
            inputs: Shapes to assume for graph inputs.
            observed: Shapes known from running it, for tensors that inference can't tell. Where
                it was run, inference does not guess what shape arithmetic gives.
            closed: Bodies that are to be looked at from outside only, with reasons; a node
                stands for all of its bodies.
        """
        flat = flattened(model)
        self.source, self.model, self._twins = model, flat.model, flat.twins
        self._functions = {(f.domain, f.name) for f in flat.model.functions}
        model = flat.model
        self._input_shapes = inputs
        self._observed = observed
        self.closed: dict[str, str] = {**(closed or {}), **_mixed_up(model.graph)}
        self.bodies: dict[str, onnx.GraphProto] = {TOP: model.graph}
        self.scopes: dict[str, str] = {}
        self.nodes: dict[str, onnx.NodeProto] = {}
        self.producers: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[Slot]] = defaultdict(list)
        for node in model.graph.node:
            self._index_bodies(node)
            self._index(node, TOP)
        self.outputs: frozenset[str] = frozenset(
            output.name for body in self.bodies.values() for output in body.output
        )
        self.opset: int = next(
            (o.version for o in model.opset_import if o.domain in STANDARD_DOMAINS), 1
        )
        self._stored: dict[str, onnx.TensorProto] = {
            tensor.name: tensor for body in self.bodies.values() for tensor in body.initializer
        }
        self._arrays: dict[str, Array] = {}
        self.detached: Mapping[str, onnx.TensorProto] = {}
        """Tensors that the model has stubs for."""
        self.folds: dict[str, Array | None] = {}
        """Values of computed constants, once they were asked for."""

    def _index_bodies(self, owner: onnx.NodeProto) -> None:
        for name, body in bodies(owner):
            scope = f"{node_id(owner)}.{name}"
            if self.closed.keys().isdisjoint((node_id(owner), scope)):
                self.bodies[scope] = body
                for node in body.node:
                    self._index(node, scope)

    def _index(self, node: onnx.NodeProto, scope: str) -> None:
        ident = node_id(node)
        self.nodes[ident], self.scopes[ident] = node, scope
        for name in filter(None, node.output):
            self.producers[name] = node
        for index, name in enumerate(node.input):
            if name:
                self.readers[name].append(Slot(ident, index))

    def scope(self, tensor: str) -> str:
        """The body that makes a tensor; the top-level graph's where no node does."""
        maker = self.producers.get(tensor)
        return TOP if maker is None else self.scopes[node_id(maker)]

    @cached_property
    def captured(self) -> frozenset[str]:
        """Names that are read from outside of the scope they are made in, constants aside."""
        hidden = (n for owner in self.nodes.values() for n in self._hidden_reads(owner))
        trained = _trained(self.model)
        read = (name for name, slots in self.readers.items() if self._crosses(name, slots))
        return frozenset((*hidden, *trained, *read))

    def hidden(self, owner: onnx.NodeProto) -> Iterator[tuple[str, Nodes]]:
        """Nodes in a node's bodies, or in the function it calls, that are not indexed, and why."""
        yield from ((reason, body.node) for reason, body in self._closed_bodies(owner))
        for function in self.model.functions if self.calls_function(owner) else ():
            if (function.domain, function.name) == (owner.domain, owner.op_type):
                yield "its opset is not that of the model", function.node

    def _closed_bodies(self, owner: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
        is_inner = self.scopes[node_id(owner)] != TOP
        for name, body in bodies(owner):
            single = self.closed.get(f"{node_id(owner)}.{name}")
            reason = self.closed.get(node_id(owner)) or single
            if is_inner or reason:
                yield reason or "it is itself in a body", body

    def calls_function(self, node: onnx.NodeProto) -> bool:
        """Whether a node calls a function of the model, which could not be written out."""
        return (node.domain, node.op_type) in self._functions

    def _hidden_reads(self, owner: onnx.NodeProto) -> Iterator[str]:
        """Names that bodies read or return which are not indexed."""
        for _, body in self._closed_bodies(owner):
            yield from _read_names(body)

    def _crosses(self, name: str, slots: Iterable[Slot]) -> bool:
        made = name in self.producers and self.constant_root(name) is None
        return made and any(self.scopes[slot.node] != self.scope(name) for slot in slots)

    @cached_property
    def tensors(self) -> dict[str, TensorInfo]:
        """What is known of the shape and dtype of every tensor."""
        guess = self._observed is None
        found = infer_shapes(self.model, self._input_shapes, data_prop=guess)
        for name, shape in (self._observed or {}).items():
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
        """Top-level tensors whose rank, or a size behind the first axis, is not known."""
        names = (name for name in self.producers if self.scope(name) == TOP)
        return [name for name in names if _is_open(self.tensors.get(name))]

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
        while tensor not in self._stored:
            node = self.producers.get(tensor)
            if node is None or node.domain not in STANDARD_DOMAINS:
                return None
            if node.op_type != "Identity":
                return tensor if _is_dense_constant(node) else None
            tensor = node.input[0]
        return tensor

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
        names = [root]
        for name in names:
            for slot in self.readers.get(name, ()):
                node = self.nodes[slot.node]
                if node.op_type == "Identity" and node.domain in STANDARD_DOMAINS:
                    names.append(slot.node)
                else:
                    found.append(slot)
        return found

    def first_twin(self, root: str) -> str:
        """The same constant in the first call of its function; itself where there is none."""
        return self._twins.get(root, root)

    def shared_slots(self, root: str) -> list[Slot]:
        """All inputs that read a stored constant, in other calls of its function too."""
        first = self.first_twin(root)
        twins = [twin for twin, own in self._twins.items() if own == first] or [root]
        return [slot for twin in twins for slot in self.constant_slots(twin)]

    def forms_of(self, root: str) -> list[str]:
        """Tensors that are a stored constant in another form: Identity, Reshape and such."""
        found = [root]
        for name in found:
            slots = self.readers.get(name, ())
            kinds = {slot.node: self.nodes[slot.node].op_type for slot in slots if slot.index == 0}
            found += [form for form, kind in kinds.items() if kind in FORM_CHANGERS]
        return found[1:]

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
        """Names of all stored constants; of copies in several calls of a function the first."""
        yield from self._stored
        for ident, node in self.nodes.items():
            if _is_dense_constant(node) and self.first_twin(ident) == ident:
                yield ident

    def _load(self, root: str) -> Array:
        proto = self.constant_proto(root)
        if proto is not None:
            return values(self.whole(proto))
        node = self.producers[root]
        value = next(v for n in _LIST_ATTRIBUTES if (v := attribute(node, n)) is not None)
        kind = np.int64 if "int" in node.attribute[0].name else np.float32
        return np.asarray(value, dtype=kind)


def _is_open(info: TensorInfo | None) -> bool:
    if info is None or info.shape is None:
        return info is None or not info.is_sequence
    return any(not isinstance(dim, int) for dim in info.shape[1:])


def _is_dense_constant(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and any(
        a.name == "value" or a.name in _LIST_ATTRIBUTES for a in node.attribute
    )


def body_names(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the bodies of an If, Loop or Scan read, those made inside included."""
    for _, body in bodies(node):
        yield from _read_names(body)


def _read_names(body: onnx.GraphProto) -> Iterator[str]:
    yield from (output.name for output in body.output)
    for inner in body.node:
        yield from inner.input
        yield from body_names(inner)


def _trained(model: onnx.ModelProto) -> Iterator[str]:
    """Names that the steps of a training read or set."""
    for info in model.training_info:
        for body in (info.initialization, info.algorithm):
            yield from _read_names(body)
        yield from (pair.key for pair in (*info.initialization_binding, *info.update_binding))


def _mixed_up(graph: onnx.GraphProto) -> dict[str, str]:
    """Nodes with a name in their bodies that stands for something else elsewhere."""
    owners = {node_id(node): list(_made_inside(node)) for node in graph.node if len(node.attribute)}
    uses = Counter(name for names in owners.values() for name in names)
    uses.update({info.name for info in (*graph.input, *graph.initializer)})
    uses.update(name for node in graph.node for name in node.output if name)
    reason = "names in its body stand for several tensors"
    return {owner: reason for owner, names in owners.items() if any(uses[n] > 1 for n in names)}


def _made_inside(node: onnx.NodeProto) -> Iterator[str]:
    """Names of everything that comes into being in a node's bodies."""
    for _, body in bodies(node):
        yield from {info.name for info in (*body.input, *body.initializer)}
        for inner in body.node:
            yield from filter(None, inner.output)
            yield from _made_inside(inner)


def convolutions(nodes: Nodes) -> Iterator[str]:
    """Labels of the convolutions among nodes and in their bodies."""
    for node in nodes:
        if "Conv" in node.op_type:
            yield label(node)
        for _, body in bodies(node):
            yield from convolutions(body.node)
