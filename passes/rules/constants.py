"""Cutting a stored constant, also behind operators that only change its form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from onnx_shapprune.types import IntArray, Slot

from ..graph import FORM_CHANGERS, Graph, attribute, label, node_id
from ..stored import FILLER, QUANTISERS, former, is_formed, is_stored, origin, static_shape
from .effects import Effects, Followed, Number, Place, Refused, Sliced


def cut_constant(graph: Graph, effects: Effects, slot: Slot, axis: int, ids: IntArray) -> None:
    """Note that the constant at a node input shrinks along ``axis`` with ``ids``.

    Raises:
        Refused: It is computed, or has another size there.
    """
    tensor = graph.nodes[slot.node].input[slot.index]
    if not is_stored(graph, tensor):
        raise Refused(f"its constant '{tensor}' is {origin(graph, tensor)}")
    shape = static_shape(graph, tensor)
    if axis >= len(shape) or shape[axis] != len(ids):
        raise Refused(
            f"its constant '{tensor}' has shape {list(shape)}, not {len(ids)} along axis {axis}"
        )
    if graph.constant_root(tensor) is not None or not is_formed(graph, tensor):
        effects.slices.append(Sliced(slot, axis, ids))
        return
    maker = graph.producers[tensor]
    for index, inner in _axes_before(graph, effects, maker, axis, ids):
        cut_constant(graph, effects, Slot(node_id(maker), index), inner, ids)


def _axes_before(
    graph: Graph, effects: Effects, maker: onnx.NodeProto, axis: int, ids: IntArray
) -> Iterator[tuple[int, int]]:
    """Inputs of a node that changes a constant's form, each with the axis to cut there."""
    shape = static_shape(graph, maker.output[0])
    if maker.op_type in FORM_CHANGERS:
        inner = _axis_before(static_shape(graph, maker.input[0]), shape, axis)
        if maker.op_type == "Reshape":
            _follow_shape(graph, effects, maker, (inner, axis), ids)
        yield 0, inner
    elif maker.op_type == "Transpose":
        order = attribute(maker, "perm", range(len(shape))[::-1])
        yield 0, int(order[axis])
    elif maker.op_type == FILLER:
        effects.follows.append(Followed(Slot(node_id(maker), 0), "", axis, ids))
    elif maker.op_type in QUANTISERS:
        yield 0, axis
        yield from _per_channel_parameters(graph, maker, axis)
    else:
        yield from _broadcast_operands(graph, maker, axis)


def _per_channel_parameters(
    graph: Graph, maker: onnx.NodeProto, axis: int
) -> Iterator[tuple[int, int]]:
    """Scale and zero point, where there is one for every channel."""
    rank = len(static_shape(graph, maker.output[0]))
    for index in range(1, len(maker.input)):
        shape = static_shape(graph, maker.input[index]) if maker.input[index] else ()
        if len(shape) > 1:
            raise Refused(f"its constant is quantised in blocks by '{label(maker)}'")
        if shape not in ((), (1,)) and int(attribute(maker, "axis", 1)) % rank == axis:
            yield index, 0


def _broadcast_operands(
    graph: Graph, maker: onnx.NodeProto, axis: int
) -> Iterator[tuple[int, int]]:
    """Operands of an element-wise operator that have more than one entry along the axis."""
    rank = len(static_shape(graph, maker.output[0]))
    for index, name in enumerate(maker.input):
        shape = static_shape(graph, name)
        place = axis - rank + len(shape)
        if place >= 0 and shape[place] != 1:
            yield index, place


def stored_numbers(graph: Graph, slot: Slot) -> tuple[Number, ...] | None:
    """Entries of a stored list of integers, also behind a Cast or Unsqueeze of it."""
    tensor = graph.nodes[slot.node].input[slot.index]
    array = graph.constant(tensor)
    if array is None:
        maker = former(graph, tensor)
        if maker is None or maker.op_type not in FORM_CHANGERS or not is_formed(graph, tensor):
            return None
        return stored_numbers(graph, Slot(node_id(maker), 0))
    if array.ndim > 1 or array.dtype.kind != "i":
        return None
    return tuple(Number(int(v), Place(slot, i)) for i, v in enumerate(np.ravel(array)))


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
    sizes = graph.constant(maker.input[1])
    entry = None if sizes is None else int(np.ravel(sizes)[axis])
    if entry == len(ids):
        effects.follows.append(Followed(Slot(node_id(maker), 1), "", axis, ids))
    elif entry != -1 and not (entry == 0 and inner == axis):
        raise Refused(f"its constant is reshaped by '{label(maker)}' in a way not followed")
