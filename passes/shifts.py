"""What a linear node's output gains when some of its input channels become constant.

A channel that is the constant μ everywhere, its padding included, adds
Σ_k W[o, c, k]·μ to output o of a convolution: the same number at every position. The
masked graph adds it and removal folds it into the bias, so both agree to the border.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from onnx_shapprune.types import ChannelGroup, Cut, FloatArray, Shift

from .graph import Graph, attribute


class NotConstant(Exception):
    """A constant channel does not add a constant to this node's output."""

    def __init__(self, node: onnx.NodeProto) -> None:
        super().__init__(f"a constant channel adds no constant to the output of {node.op_type}")
        self.node = node


def shifts(graph: Graph, group: ChannelGroup, means: Mapping[str, FloatArray]) -> tuple[Shift, ...]:
    """Shifts of all nodes that read the group's channels.

    Args:
        graph: Index of the model.
        group: The group.
        means: Per tensor that is read, the constant each position takes: float64[width].

    Raises:
        NotConstant: A reader is of a kind for which this does not hold.
    """
    return tuple(
        Shift(slot.node, _per_player(response(graph, slot.node) * means[cut.tensor], cut, group))
        for cut in group.reads
        for slot in cut.readers
    )


def _per_player(by_position: FloatArray, cut: Cut, group: ChannelGroup) -> FloatArray:
    members = np.zeros((len(cut.owner), group.players + 1))
    members[np.arange(len(cut.owner)), cut.owner] = 1  # NOBODY's land in the last column
    return by_position @ members[:, :-1]


def response(graph: Graph, node_id: str) -> FloatArray:
    """What each output channel gains per unit of each input channel, float64[outputs, width]."""
    node = graph.nodes[node_id]
    kernel = np.asarray(graph.constant(node.input[1]), np.float64)
    if node.op_type == "Conv":
        return _conv_response(kernel, int(attribute(node, "group", 1)))
    if node.op_type == "Gemm":
        scale = float(attribute(node, "alpha", 1.0))
        return scale * (kernel if attribute(node, "transB", 0) else kernel.T)
    if node.op_type == "MatMul":
        return kernel.T
    raise NotConstant(node)


def _conv_response(kernel: FloatArray, groups: int) -> FloatArray:
    per_group = kernel.reshape(*kernel.shape[:2], -1).sum(axis=2)
    outputs, width = per_group.shape
    full = np.zeros((groups, outputs // groups, groups, width))
    for number, block in enumerate(np.split(per_group, groups)):
        full[number, :, number] = block
    return full.reshape(outputs, groups * width)
