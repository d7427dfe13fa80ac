"""Stored constants, also behind operators that give them another form.

Exporters transpose, cast and dequantise weights on the fly: the operand of a node is
then computed, but from nothing else than the file.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

import onnx

from onnx_shapprune.types import Array, Slot

from .folding import ancestors, folded
from .graph import FORM_CHANGERS, STANDARD_DOMAINS, Graph, label, node_id

QUANTISERS = frozenset({"DequantizeLinear", "QuantizeLinear"})
SCALERS = frozenset({"Mul", "Div", "Add", "Sub"})
FILLER = "ConstantOfShape"
"""Repeats a number: its stored shape is all there is to cut."""
FORMERS = FORM_CHANGERS | QUANTISERS | SCALERS | {"Transpose", FILLER}
"""Operators behind which a stored constant still counts as stored."""
_MAX_FORMS = 64


def is_stored(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is made of nothing but stored constants."""
    return is_formed(graph, tensor) or is_folded(graph, tensor)


def is_formed(graph: Graph, tensor: str, most: int = _MAX_FORMS) -> bool:
    """Whether a tensor is a stored constant, or one in another form with a single reader.

    ``most`` are the nodes in a row that may change its form.
    """
    if graph.constant_root(tensor) is not None:
        return True
    maker = former(graph, tensor)
    if maker is None or not most or not _has_one_reader(graph, tensor):
        return False
    if maker.op_type == FILLER:
        return graph.constant_root(maker.input[0]) is not None
    return all(is_formed(graph, name, most - 1) for name in maker.input if name)


def is_folded(graph: Graph, tensor: str) -> bool:
    """Whether its value can be stored in its place: it is computed, and not from integers."""
    if graph.is_exposed(tensor):
        return False
    nodes = ancestors(graph, tensor)
    if not nodes or not QUANTISERS.isdisjoint(node.op_type for node in nodes):
        return False
    return folded(graph, tensor, limited=False) is not None


def stored_shape(graph: Graph, tensor: str) -> tuple[int, ...] | None:
    """Shape of a stored constant in any form; None if it is computed from something else."""
    if graph.constant_root(tensor) is not None:
        return graph.constant_shape(tensor)
    if not is_stored(graph, tensor):
        return None
    shape = static_shape(graph, tensor)
    return None if -1 in shape else shape


def stored_value(graph: Graph, tensor: str) -> Array | None:
    """Value of a stored constant in any form, of any size; None if it is computed."""
    array = graph.constant(tensor)
    if array is not None or not is_stored(graph, tensor):
        return array
    return folded(graph, tensor, limited=False)


def forms(graph: Graph, root: str) -> Iterator[str]:
    """Tensors that are made of a stored constant and of nothing but other ones."""
    pending = [root]
    while pending:
        readers = graph.readers.get(pending.pop(), ())
        names = [graph.nodes[slot.node].output[0] for slot in readers]
        found = [name for name in names if former(graph, name) and is_stored(graph, name)]
        yield from found
        pending += found


def roots(graph: Graph, tensor: str) -> Iterator[str]:
    """Where all the constants are stored that a stored tensor is made of."""
    root = graph.constant_root(tensor)
    if root is not None:
        yield root
    elif is_stored(graph, tensor):
        for name in filter(None, graph.producers[tensor].input):
            yield from roots(graph, name)


def former(graph: Graph, tensor: str) -> onnx.NodeProto | None:
    """The node that gives a constant another form."""
    maker = graph.producers.get(tensor)
    if maker is None or maker.domain not in STANDARD_DOMAINS:
        return None
    return maker if maker.op_type in FORMERS else None


def static_shape(graph: Graph, tensor: str) -> tuple[int, ...]:
    """Shape of a constant in any form; -1 where it is not known."""
    shape = graph.constant_shape(tensor) or graph.shape(tensor)
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        value = folded(graph, tensor, limited=False)
        shape = shape or () if value is None else value.shape
    return tuple(dim if isinstance(dim, int) else -1 for dim in shape)


def origin(graph: Graph, tensor: str) -> str:
    """Where a tensor that is not stored comes from, in words."""
    maker = graph.producers.get(tensor)
    return f"computed by {maker.op_type} '{label(maker)}'" if maker else "a graph input"


def _has_one_reader(graph: Graph, tensor: str) -> bool:
    """Whether nobody else would see the tensor change."""
    return len(graph.readers[tensor]) == 1 and not graph.is_exposed(tensor)


def leaf(graph: Graph, slot: Slot) -> Slot | None:
    """The slot where the constant that reaches a node input is stored, element by element.

    None where it is not: computed, or filled with one number.
    """
    tensor = graph.nodes[slot.node].input[slot.index]
    if graph.constant_root(tensor) is not None:
        return slot
    if not is_formed(graph, tensor):
        return None
    maker = graph.producers[tensor]
    if maker.op_type == FILLER:
        return None
    inputs = maker.input if maker.op_type in SCALERS else maker.input[:1]
    largest = max(range(len(inputs)), key=lambda i: _size(static_shape(graph, inputs[i])))
    return leaf(graph, Slot(node_id(maker), largest))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for dim in shape:
        size *= dim
    return size


def is_kernel(graph: Graph, tensor: str) -> bool:
    """Whether a constant has more than one axis longer than one."""
    shape = stored_shape(graph, tensor) or ()
    return sum(size > 1 for size in shape) > 1


def absorbed(graph: Graph, slots: Iterable[Slot]) -> frozenset[str]:
    """Nodes that nobody needs any more when the values at these inputs are stored."""
    stored = {slot for slot in slots if graph.constant_root(_tensor(graph, slot)) is None}
    nodes = {node_id(n): n for s in stored for n in ancestors(graph, _tensor(graph, s))}
    gone: set[str] = set()
    for ident in reversed([ident for ident in graph.nodes if ident in nodes]):
        slots_of = [s for name in nodes[ident].output for s in graph.readers.get(name, ())]
        if all(s in stored or s.node in gone for s in slots_of) and not graph.is_exposed(ident):
            gone.add(ident)
    return frozenset(gone)


def stays_anyhow(graph: Graph, tensor: str, gone: Container[str]) -> bool:
    """Whether a kernel that a tensor is computed from has readers beside those that are gone."""
    sources = {name for node in ancestors(graph, tensor) for name in node.input}
    roots = {graph.constant_root(name) for name in sources} - {None}
    kernels = [root for root in roots if root and is_kernel(graph, root)]
    return any(s.node not in gone for root in kernels for s in graph.constant_slots(root))


def _tensor(graph: Graph, slot: Slot) -> str:
    return str(graph.nodes[slot.node].input[slot.index])
