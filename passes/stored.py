"""Stored constants, also behind operators that give them another form.

Exporters transpose, cast and dequantise weights on the fly: the operand of a node is
then computed, but from nothing else than the file.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from onnx_shapprune.types import Array, Slot

from .folding import folded
from .graph import FORM_CHANGERS, STANDARD_DOMAINS, Graph, label, node_id

QUANTISERS = frozenset({"DequantizeLinear", "QuantizeLinear"})
SCALERS = frozenset({"Mul", "Div", "Add", "Sub"})
_MAX_FORMS = 64
_FORMERS = FORM_CHANGERS | QUANTISERS | SCALERS | {"Transpose"}


def is_stored(graph: Graph, tensor: str, most: int = _MAX_FORMS) -> bool:
    """Whether a tensor is a stored constant, or one in another form with a single reader.

    ``most`` are the nodes in a row that may change its form.
    """
    if graph.constant_root(tensor) is not None:
        return True
    maker = former(graph, tensor)
    if maker is None or not most or not _has_one_reader(graph, tensor):
        return False
    return all(is_stored(graph, name, most - 1) for name in maker.input if name)


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


def former(graph: Graph, tensor: str) -> onnx.NodeProto | None:
    """The node that gives a constant another form."""
    maker = graph.producers.get(tensor)
    if maker is None or maker.domain not in STANDARD_DOMAINS:
        return None
    return maker if maker.op_type in _FORMERS else None


def static_shape(graph: Graph, tensor: str) -> tuple[int, ...]:
    """Shape of a constant in any form; -1 where it is not known."""
    shape = graph.constant_shape(tensor) or graph.shape(tensor) or ()
    return tuple(dim if isinstance(dim, int) else -1 for dim in shape)


def origin(graph: Graph, tensor: str) -> str:
    """Where a tensor that is not stored comes from, in words."""
    maker = graph.producers.get(tensor)
    return f"computed by {maker.op_type} '{label(maker)}'" if maker else "a graph input"


def _has_one_reader(graph: Graph, tensor: str) -> bool:
    """Whether nobody else would see the tensor change."""
    return len(graph.readers[tensor]) == 1 and not graph.is_exposed(tensor)


def leaf(graph: Graph, slot: Slot) -> Slot | None:
    """The slot where the constant that reaches a node input is stored, element by element."""
    tensor = graph.nodes[slot.node].input[slot.index]
    if graph.constant_root(tensor) is not None:
        return slot
    if not is_stored(graph, tensor):
        return None
    maker = graph.producers[tensor]
    inputs = maker.input if maker.op_type in SCALERS else maker.input[:1]
    largest = max(range(len(inputs)), key=lambda i: _size(static_shape(graph, inputs[i])))
    return leaf(graph, Slot(node_id(maker), largest))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for dim in shape:
        size *= dim
    return size
