"""The evaluation graph: the model with one mask input per group.

An absent player is masked where it is *read*, not where it is made: behind a
BatchNorm shift or a Sigmoid a zeroed channel would come alive again. So the masked
graph computes exactly what the model without the channels computes.

GraphSurgeon serves here because the graph lives for a session only; a file that is
kept never passes through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_shapprune.types import Array, ChannelGroup, Cut, Shift

from .graph import Graph
from .stored import stored_shape
from .weights import bring_in, detached, restore

gs.logger.G_LOGGER.severity = gs.logger.G_LOGGER.CRITICAL  # its warnings concern no user of ours

_PREFIX = "kept of "
_ZERO_POINTS = {"QLinearConv": 2, "ConvInteger": 2, "MatMulInteger": 2, "QLinearMatMul": 2}
"""Operators on quantised values, and the input that says which value means zero."""


def mask_name(group: str) -> str:
    """Name of the mask input of a group: float32[players], 1 present, 0 absent."""
    return _PREFIX + group


def masked_model(
    graph: Graph, groups: Sequence[ChannelGroup], shifts: Mapping[str, Sequence[Shift]]
) -> onnx.ModelProto:
    """The model with a mask input for every group; left out, a mask is all ones.

    Args:
        graph: Index of the model; the model itself is not changed.
        groups: Groups to mask.
        shifts: Per group name, what absent players add to the nodes that read them;
            groups without an entry have absent players count as zero.
    """
    surgeon = _Masker(graph)
    for group in groups:
        surgeon.mask(group, shifts.get(group.name, ()))
    return surgeon.export([group.name for group in groups], [group.players for group in groups])


def _zero_point(node: Any) -> Any | None:
    index = _ZERO_POINTS[node.op]
    found = node.inputs[index] if len(node.inputs) > index else None
    return None if found is None or found.is_empty() else found


class _Masker:
    def __init__(self, graph: Graph) -> None:
        self._source = graph
        copy, self._whole = detached(graph.model)  # GraphSurgeon renames inside what it is given
        bring_in(copy, graph.captured, self._whole)  # and moves into bodies what they read
        self._graph = gs.import_onnx(copy)
        self._nodes = {self._id(node): node for node in self._graph.nodes}
        self._count = 0

    @staticmethod
    def _id(node: Any) -> str:
        return str(next((tensor.name for tensor in node.outputs if tensor.name), node.name))

    def mask(self, group: ChannelGroup, shifts: Sequence[Shift]) -> None:
        """Add the group's mask input and let its readers read masked tensors."""
        mask = gs.Variable(mask_name(group.name), np.float32, [group.players])
        self._graph.inputs.append(mask)
        extended = self._add("Concat", [mask, self._constant(np.ones(1, np.float32))], axis=0)
        for cut in group.reads:
            self._mask_read(cut, extended)
        if shifts:
            absent = self._add("Sub", [self._constant(np.ones(1, np.float32)), mask])
            for shift in shifts:
                self._shift(shift, absent)

    def _mask_read(self, cut: Cut, extended: Any) -> None:
        """Multiply the tensor by its positions' masks; NOBODY's is the extra 1 at the end."""
        source = self._source.nodes[cut.readers[0].node]
        kernel = source.input[1] if len(source.input) > 1 else ""
        rank = len(self._source.shape(cut.tensor) or stored_shape(self._source, kernel) or ())
        shape = [1] * rank
        shape[cut.axis] = len(cut.owner)
        factors = self._add("Gather", [extended, self._constant(cut.owner)], axis=0)
        reader = self._nodes[cut.readers[0].node]
        first = reader.inputs[cut.readers[0].index]
        if source.op_type in _ZERO_POINTS:
            masked = self._where(factors, shape, first, _zero_point(reader))
        else:
            elem_type = self._source.elem_type(cut.tensor) or self._source.elem_type(kernel)
            masked = self._add("Mul", [first, self._reshaped(factors, shape, elem_type)])
        for slot in cut.readers:
            self._nodes[slot.node].inputs[slot.index] = masked

    def _where(self, factors: Any, shape: Sequence[int], present: Any, zero: Any | None) -> Any:
        """Quantised values where a player is present, what means zero elsewhere."""
        factors = self._reshaped(factors, shape, onnx.TensorProto.BOOL)
        if zero is None:
            zero = self._constant(np.zeros(1, np.uint8))
            zero = self._add("CastLike", [zero, present])
        return self._add("Where", [factors, present, zero])

    def _shift(self, shift: Shift, absent: Any) -> None:
        """Add to the node's output what the absent players contribute as constants."""
        node, source = self._nodes[shift.node], self._source.nodes[shift.node]
        elem_type = self._source.elem_type(source.input[1])
        precise = elem_type == onnx.TensorProto.DOUBLE
        if precise:
            absent = self._add("Cast", [absent], to=elem_type)
        rows = shift.response.T.astype(np.float64 if precise else np.float32)
        total = self._add("MatMul", [absent, self._constant(np.ascontiguousarray(rows))])
        shape = [shift.response.shape[0]]
        if node.op == "Conv":
            kernel = stored_shape(self._source, source.input[1]) or ()
            shape = [1, *shape, *[1] * (len(kernel) - 2)]
        total = self._reshaped(total, shape, elem_type)
        output = node.outputs[0]
        node.outputs[0] = gs.Variable(self._name(), output.dtype)
        add = gs.Node("Add", self._name(), inputs=[node.outputs[0], total], outputs=[output])
        self._graph.nodes.append(add)

    def _reshaped(self, tensor: Any, shape: Sequence[int], elem_type: int) -> Any:
        tensor = self._add("Reshape", [tensor, self._constant(np.asarray(shape, np.int64))])
        if elem_type in (0, onnx.TensorProto.FLOAT):
            return tensor
        return self._add("Cast", [tensor], to=elem_type)

    def _add(self, op: str, inputs: list[Any], **attributes: int) -> Any:
        output = gs.Variable(self._name())
        self._graph.nodes.append(gs.Node(op, self._name(), attributes, inputs, [output]))
        return output

    def _constant(self, values: Array) -> Any:
        return gs.Constant(self._name(), values)

    def _name(self) -> str:
        self._count += 1
        return f"{_PREFIX}:{self._count}"

    def export(self, names: Sequence[str], players: Sequence[int]) -> onnx.ModelProto:
        """The finished model, its masks all ones by default."""
        self._graph.toposort()
        model: onnx.ModelProto = gs.export_onnx(self._graph, do_type_check=False)
        del model.graph.sparse_initializer[:]
        model.graph.sparse_initializer.extend(self._source.model.graph.sparse_initializer)
        del model.opset_import[:]
        model.opset_import.extend(self._source.model.opset_import)
        model.ir_version = max(self._source.model.ir_version, 4)
        for name, count in zip(names, players, strict=True):
            ones = onnx.numpy_helper.from_array(np.ones(count, np.float32), mask_name(name))
            model.graph.initializer.append(ones)
        restore(model, self._whole)
        return model
