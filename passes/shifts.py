"""What a linear node's output gains when some of its input channels become constant.

A channel that is the constant μ everywhere, its padding included, adds
Σ_k W[o, c, k]·μ to output o of a convolution: the same number at every position. The
masked graph adds it and removal folds it into the bias, so both agree to the border.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx

from onnx_shapprune.errors import ModelError
from onnx_shapprune.types import Array, ChannelGroup, Cut, FloatArray, Shift, Slot

from .graph import TOP, Graph, attribute
from .stored import is_folded, is_formed, stored_value

_SHIFTED_BY_CONSTANTS = frozenset({"Conv", "Gemm", "MatMul"})
_BIAS = 2


def unshifted_readers(graph: Graph, group: ChannelGroup) -> list[onnx.NodeProto]:
    """Readers of the group to whose output a constant channel adds no constant."""
    slots = (slot for cut in group.reads for slot in cut.readers)
    return [graph.nodes[slot.node] for slot in slots if not _takes_shift(graph, slot)]


def _takes_shift(graph: Graph, slot: Slot) -> bool:
    """Whether constants at a node input add constants, and there is a place for them."""
    node = graph.nodes[slot.node]
    is_inner = graph.scopes[slot.node] != TOP  # its mean over the samples is not known
    if node.op_type not in _SHIFTED_BY_CONSTANTS or slot.index > 0 or is_inner:
        return False
    bias = node.input[_BIAS] if len(node.input) > _BIAS else ""
    known = stored_value(graph, node.input[1]) is not None
    return known and (not bias or _can_grow(graph, bias))


def _can_grow(graph: Graph, bias: str) -> bool:
    """Whether something can be added to a bias: not behind operators that change its form."""
    return graph.constant(bias) is not None or (
        not is_formed(graph, bias) and is_folded(graph, bias)
    )


def shifted_axes(graph: Graph, groups: Iterable[ChannelGroup]) -> dict[str, int]:
    """Tensors whose means are wanted, each with the axis of its channels."""
    cuts = (cut for group in groups for cut in group.reads)
    return {c.tensor: c.axis for c in cuts if any(_takes_shift(graph, s) for s in c.readers)}


def shifts(graph: Graph, group: ChannelGroup, means: Mapping[str, FloatArray]) -> tuple[Shift, ...]:
    """Shifts of the nodes that read the group's channels.

    For the readers that :func:`unshifted_readers` lists, an absent channel is zero.

    Args:
        graph: Index of the model.
        group: The group.
        means: Per tensor that is read, the constant each position takes: float64[width].
    """
    return tuple(
        Shift(slot.node, _per_player(response(graph, slot.node) * means[cut.tensor], cut, group))
        for cut in group.reads
        for slot in cut.readers
        if _takes_shift(graph, slot)
    )


def _per_player(by_position: FloatArray, cut: Cut, group: ChannelGroup) -> FloatArray:
    total = np.zeros((group.players + 1, len(by_position)))
    np.add.at(total, cut.owner, by_position.T)  # NOBODY's land in the last row
    return total[:-1].T


def response(graph: Graph, node_id: str) -> FloatArray:
    """What each output channel gains per unit of each input channel, float64[outputs, width]."""
    node = graph.nodes[node_id]
    stored = np.asarray(stored_value(graph, node.input[1]))
    if node.op_type == "Conv":
        return _conv_response(stored, int(attribute(node, "group", 1)))
    kernel = stored.astype(np.float64)
    if node.op_type == "Gemm":
        scale = float(attribute(node, "alpha", 1.0))
        return scale * (kernel if attribute(node, "transB", 0) else kernel.T)
    return kernel.T


def _conv_response(kernel: Array, groups: int) -> FloatArray:
    per_group = kernel.reshape(*kernel.shape[:2], -1).sum(axis=2, dtype=np.float64)
    outputs, width = per_group.shape
    full = np.zeros((groups, outputs // groups, groups, width))
    for number, block in enumerate(np.split(per_group, groups)):
        full[number, :, number] = block
    return full.reshape(outputs, groups * width)


def as_dtype(values: Array, dtype: np.dtype[Any]) -> Array:
    """What is added to outputs, in the type that the model computes in.

    Raises:
        ModelError: They are too large for it.
    """
    with np.errstate(over="ignore"):
        found: Array = values.astype(dtype)
    if not np.array_equal(np.isfinite(found), np.isfinite(values)):
        raise ModelError(
            f"what stands in for absent channels is too large for {dtype}",
            "let them count as zero: --absent zero",
        )
    return found
