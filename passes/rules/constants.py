"""Cutting a stored constant, also behind operators that only change its form."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_shapprune.types import IntArray, Slot

from ..graph import FORM_CHANGERS, STANDARD_DOMAINS, Graph, label, node_id
from .effects import Effects, Followed, Number, Refused, Sliced


def is_stored(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is a stored constant, or one in another form with a single reader."""
    if graph.constant_root(tensor) is not None:
        return True
    maker = _reshaper(graph, tensor)
    if maker is None or not _has_one_reader(graph, tensor):
        return False
    parameters = all(graph.constant_root(name) for name in maker.input[1:] if name)
    return parameters and is_stored(graph, maker.input[0])


def cut_constant(graph: Graph, effects: Effects, slot: Slot, axis: int, ids: IntArray) -> None:
    """Note that the constant at a node input shrinks along ``axis`` with ``ids``.

    Raises:
        Refused: It is computed, or has another size there.
    """
    tensor = graph.nodes[slot.node].input[slot.index]
    if not is_stored(graph, tensor):
        raise Refused(f"its constant '{tensor}' is {origin(graph, tensor)}")
    shape = _static_shape(graph, tensor)
    if axis >= len(shape) or shape[axis] != len(ids):
        raise Refused(
            f"its constant '{tensor}' has shape {list(shape)}, not {len(ids)} along axis {axis}"
        )
    if graph.constant_root(tensor) is not None:
        effects.slices.append(Sliced(slot, axis, ids))
        return
    maker = graph.producers[tensor]
    inner = _axis_before(_static_shape(graph, maker.input[0]), shape, axis)
    if maker.op_type == "Reshape":
        _follow_shape(graph, effects, maker, (inner, axis), ids)
    cut_constant(graph, effects, Slot(node_id(maker), 0), inner, ids)


def stored_numbers(graph: Graph, slot: Slot) -> tuple[Number, ...] | None:
    """Entries of a stored list of integers, also behind a Cast or Unsqueeze of it."""
    tensor = graph.nodes[slot.node].input[slot.index]
    array = graph.constant(tensor)
    if array is None:
        maker = _reshaper(graph, tensor)
        if maker is None or not _has_one_reader(graph, tensor):
            return None
        return stored_numbers(graph, Slot(node_id(maker), 0))
    if array.ndim > 1 or array.dtype.kind != "i":
        return None
    return tuple(Number(int(v), slot, i) for i, v in enumerate(np.ravel(array)))


def origin(graph: Graph, tensor: str) -> str:
    """Where a tensor that is not stored comes from, in words."""
    maker = graph.producers.get(tensor)
    return f"computed by {maker.op_type} '{label(maker)}'" if maker else "a graph input"


def _has_one_reader(graph: Graph, tensor: str) -> bool:
    """Whether nobody else would see the tensor change."""
    return len(graph.readers[tensor]) == 1 and not graph.is_exposed(tensor)


def _reshaper(graph: Graph, tensor: str) -> onnx.NodeProto | None:
    maker = graph.producers.get(tensor)
    standard = maker is not None and maker.domain in STANDARD_DOMAINS
    return maker if standard and maker is not None and maker.op_type in FORM_CHANGERS else None


def _static_shape(graph: Graph, tensor: str) -> tuple[int, ...]:
    shape = graph.constant_shape(tensor) or graph.shape(tensor) or ()
    return tuple(dim if isinstance(dim, int) else -1 for dim in shape)


def _axis_before(source: tuple[int, ...], result: tuple[int, ...], axis: int) -> int:
    """The axis of ``source`` that ``axis`` of ``result`` was, if only ones came and went."""
    before = [i for i, size in enumerate(source) if size != 1]
    after = [i for i, size in enumerate(result) if size != 1]
    if [source[i] for i in before] != [result[i] for i in after] or axis not in after:
        raise Refused(f"its constant is reshaped from {list(source)} to {list(result)}")
    return before[after.index(axis)]


def _follow_shape(
    graph: Graph, effects: Effects, maker: onnx.NodeProto, axes: tuple[int, int], ids: IntArray
) -> None:
    inner, axis = axes
    entry = int(np.ravel(np.asarray(graph.constant(maker.input[1])))[axis])
    if entry == len(ids):
        effects.follows.append(Followed(Slot(node_id(maker), 1), "", axis, ids))
    elif entry != -1 and not (entry == 0 and inner == axis):
        raise Refused(f"its constant is reshaped by '{label(maker)}' in a way not followed")
