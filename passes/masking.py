"""The evaluation graph: the model with one mask input per group.

An absent player is masked where it is *read*, not where it is made: behind a
BatchNorm shift or a Sigmoid a zeroed channel would come alive again. So the masked
graph computes exactly what the model without the channels computes.

GraphSurgeon serves here because the graph lives for a session only; a file that is
kept never passes through it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_shapprune.types import Array, ChannelGroup, Cut, Shift, Slot

from .averages import Averaging, averaging
from .graph import Graph, body_names
from .shifts import as_dtype
from .stored import stored_shape
from .validity import RESERVED
from .weights import bring_in, detached, restore

gs.logger.G_LOGGER.severity = gs.logger.G_LOGGER.CRITICAL  # its warnings concern no user of ours

_FLOAT, _DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
_SCALE = 1
"""Input of a normalisation."""

_AXES_ARE_INPUTS = {"ReduceSum": 13, "ReduceMean": 18}
"""Since which opset the axes of an operator are an input, no attribute."""

_ZERO_POINTS = {"QLinearConv": 2, "ConvInteger": 2, "MatMulInteger": 2} | {
    "QLinearMatMul": 2,
    "QGemm": 2,
}
"""Operators on quantised values, and the input that says which value means zero."""


def mask_name(group: str) -> str:
    """Name of the mask input of a group: float32[players], 1 present, 0 absent."""
    return RESERVED + group


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
    masker = _Masker(graph)
    for group in groups:
        masker.add_group(group, shifts.get(group.name, ()))
    masker.mask_reads()
    return masker.export(groups)


def _zero_point(node: Any) -> Any | None:
    index = _ZERO_POINTS[node.op]
    found = node.inputs[index] if len(node.inputs) > index else None
    return None if found is None or found.is_empty() else found


@dataclass(frozen=True, eq=False)
class _Mean:
    """What a mean is made of: values, the mask of each, and how many channels are present.

    They are of type ``elem_type``; nodes for them go to ``place``.
    """

    over: Averaging
    values: Any
    mask: Any
    present: Any
    elem_type: int
    place: list[Any]


class _Masker:
    """Puts nodes in front of the graph, before its nodes and behind them, in this order."""

    def __init__(self, graph: Graph) -> None:
        self._source = graph
        copy, self._whole = detached(graph.model)  # GraphSurgeon renames inside what it is given
        inside = {name for node in copy.graph.node for name in body_names(node)}
        bring_in(copy, inside, self._whole)  # and moves into bodies what they read
        self._graph = gs.import_onnx(copy)
        self._graphs = [self._graph, *self._graph.subgraphs(recursive=True)]
        self._nodes = {_id(n): n for inner in reversed(self._graphs) for n in inner.nodes}
        self._factors: dict[str, list[Any]] = {}
        self._reads: dict[str, Cut] = {}
        self._averages: dict[str, Cut] = {}
        self._front: list[Any] = []
        self._before: dict[int, list[Any]] = {}
        self._behind: dict[int, list[Any]] = {}
        self._count = 0

    # --- masks

    def add_group(self, group: ChannelGroup, shifts: Sequence[Shift]) -> None:
        """Add the group's mask input, and what absent players are replaced by."""
        mask = gs.Variable(mask_name(group.name), np.float32, [group.players])
        self._graph.inputs.append(mask)
        one = self._constant(np.ones(1, np.float32))
        extended = self._add(self._front, "Concat", [mask, one], axis=0)
        reads, averages = ({c.tensor: c for c in cuts} for cuts in (group.reads, group.averages))
        for tensor, cut in (reads | averages).items():
            owner = self._constant(cut.owner)
            factors = self._add(self._front, "Gather", [extended, owner], axis=0)
            self._factors.setdefault(tensor, []).append(factors)
        self._reads |= reads
        self._averages |= averages
        if shifts:
            absent = self._add(self._front, "Sub", [one, mask])
            for shift in shifts:
                self._shift(shift, absent)

    def mask_reads(self) -> None:
        """Multiply tensors by their positions' masks; NOBODY's is the extra 1 at the end."""
        factors = {tensor: self._product(found) for tensor, found in self._factors.items()}
        for tensor, cut in self._reads.items():
            self._mask_read(cut, factors[tensor])
        for tensor, cut in self._averages.items():
            for slot in cut.readers:
                self._weigh(slot, cut, factors[tensor])

    def _product(self, factors: Sequence[Any]) -> Any:
        """Of the masks of all groups that have positions on one tensor."""
        first, *others = factors
        for other in others:
            first = self._add(self._front, "Mul", [first, other])
        return first

    def _mask_read(self, cut: Cut, factors: Any) -> None:
        source = self._source.nodes[cut.readers[0].node]
        kernel = source.input[1] if len(source.input) > 1 else ""
        rank = len(self._source.shape(cut.tensor) or stored_shape(self._source, kernel) or ())
        shape = [1] * rank
        shape[cut.axis] = len(cut.owner)
        reader = self._nodes[cut.readers[0].node]
        place = self._before.setdefault(id(reader), [])
        first = reader.inputs[cut.readers[0].index]
        if source.op_type in _ZERO_POINTS:
            masked = self._where(place, factors, shape, first, _zero_point(reader))
        else:
            elem_type = self._source.elem_type(cut.tensor) or self._source.elem_type(kernel)
            masked = self._add(place, "Mul", [first, self._reshaped(factors, shape, elem_type)])
        for slot in cut.readers:
            self._nodes[slot.node].inputs[slot.index] = masked

    def _where(
        self, place: list[Any], factors: Any, shape: Sequence[int], present: Any, zero: Any | None
    ) -> Any:
        """Quantised values where a player is present, what means zero elsewhere."""
        factors = self._reshaped(factors, shape, onnx.TensorProto.BOOL)
        if zero is None:
            zero = self._constant(np.zeros(1, np.uint8))
            zero = self._add(place, "CastLike", [zero, present])
        return self._add(place, "Where", [factors, present, zero])

    def _shift(self, shift: Shift, absent: Any) -> None:
        """Add to the node's output what the absent players contribute as constants."""
        node, source = self._nodes[shift.node], self._source.nodes[shift.node]
        elem_type = self._source.elem_type(source.input[1])
        precise = elem_type == onnx.TensorProto.DOUBLE
        if precise:
            absent = self._add(self._front, "Cast", [absent], to=elem_type)
        rows = as_dtype(shift.response.T, np.dtype(np.float64 if precise else np.float32))
        constants = self._constant(np.ascontiguousarray(rows))
        total = self._add(self._front, "MatMul", [absent, constants])
        shape = [shift.response.shape[0]]
        if node.op == "Conv":
            kernel = stored_shape(self._source, source.input[1]) or ()
            shape = [1, *shape, *[1] * (len(kernel) - 2)]
        total = self._reshaped(total, shape, elem_type)
        output = node.outputs[0]
        node.outputs[0] = gs.Variable(self._name(), output.dtype)
        add = gs.Node("Add", self._name(), inputs=[node.outputs[0], total], outputs=[output])
        self._behind.setdefault(id(node), []).insert(0, add)

    # --- means

    def _weigh(self, slot: Slot, cut: Cut, factors: Any) -> None:
        """Give absent players no weight in the mean that a node takes."""
        node, over = self._nodes[slot.node], averaging(self._source, slot, cut)
        place = self._before.setdefault(id(node), [])
        elem_type = self._source.elem_type(cut.tensor) or _FLOAT
        precise = _DOUBLE if elem_type == _DOUBLE else _FLOAT
        source = node.inputs[slot.index]
        values = self._cast(place, source, elem_type, precise)
        if over.groups:
            values = self._add(place, "Reshape", [values, self._sizes(over.form)])
        mask = self._reshaped(factors, over.weights, precise)
        mean = _Mean(over, values, mask, self._present(factors, precise), precise, place)
        result = self._normalised(mean, node) if over.normalises else self._mean(mean)
        if over.groups:
            result = self._add(place, "Reshape", [result, self._add(place, "Shape", [source])])
        node.inputs[slot.index] = self._cast(place, result, precise, elem_type)

    def _present(self, factors: Any, elem_type: int) -> Any:
        """How many positions are present, but at least one, with shape [1]."""
        total = self._reduce(self._front, "ReduceSum", factors, [0])
        total = self._add(self._front, "Max", [total, self._constant(np.ones(1, np.float32))])
        return self._cast(self._front, total, _FLOAT, elem_type)

    def _mean(self, mean: _Mean) -> Any:
        """The mean over the channels that are present; their axis stays, with length one."""
        number = self._number(max(mean.over.groups, 1), mean.elem_type)
        each = self._add(self._front, "Div", [mean.present, number])
        weights = self._add(self._front, "Div", [mean.mask, each])
        weighted = self._add(mean.place, "Mul", [mean.values, weights])
        return self._reduce(mean.place, "ReduceSum", weighted, [mean.over.axis])

    def _normalised(self, mean: _Mean, node: Any) -> Any:
        """What to normalise for the result that the present channels alone would give.

        Zeros in absent places make the spread smaller than it is by the root of the share that
        is present: the values are made larger by it, and the node's scale smaller.
        """
        values, place = mean.values, mean.place
        if mean.over.centred:
            centre = self._reduce(place, "ReduceMean", self._mean(mean), mean.over.axes)
            values = self._add(place, "Sub", [values, centre])
        width = self._number(mean.over.width, mean.elem_type)
        share = self._add(self._front, "Div", [mean.present, width])
        root = self._add(self._front, "Sqrt", [share])
        scale = node.inputs[_SCALE]
        kind = self._source.elem_type(scale.name) or mean.elem_type
        factor = self._cast(self._front, root, mean.elem_type, kind)
        node.inputs[_SCALE] = self._add(place, "Mul", [scale, factor])
        larger = self._add(self._front, "Div", [mean.mask, root])
        return self._add(place, "Mul", [values, larger])

    def _number(self, value: int, elem_type: int) -> Any:
        return self._constant(
            np.ones(1, np.float64 if elem_type == _DOUBLE else np.float32) * value
        )

    def _reduce(self, place: list[Any], op: str, tensor: Any, axes: Sequence[int]) -> Any:
        if self._source.opset < _AXES_ARE_INPUTS[op]:
            return self._add(place, op, [tensor], axes=list(axes))
        return self._add(place, op, [tensor, self._sizes(axes)])

    def _sizes(self, values: Sequence[int]) -> Any:
        return self._constant(np.asarray(values, np.int64))

    def _cast(self, place: list[Any], tensor: Any, source: int, target: int) -> Any:
        return tensor if source == target else self._add(place, "Cast", [tensor], to=target)

    # --- nodes

    def _reshaped(self, tensor: Any, shape: Sequence[int], elem_type: int) -> Any:
        tensor = self._add(self._front, "Reshape", [tensor, self._sizes(shape)])
        return self._cast(self._front, tensor, _FLOAT, elem_type or _FLOAT)

    def _add(
        self, place: list[Any], op: str, inputs: list[Any], **attributes: int | list[int]
    ) -> Any:
        output = gs.Variable(self._name())
        place.append(gs.Node(op, self._name(), attributes, inputs, [output]))
        return output

    def _constant(self, values: Array) -> Any:
        return gs.Constant(self._name(), values)

    def _name(self) -> str:
        self._count += 1
        return f"{RESERVED}:{self._count}"

    # --- the result

    def export(self, groups: Sequence[ChannelGroup]) -> onnx.ModelProto:
        """The finished model, its masks all ones by default."""
        for inner in self._graphs:
            inner.nodes = [node for old in inner.nodes for node in self._surrounded(old)]
        self._graph.nodes = [*self._front, *self._graph.nodes]
        model: onnx.ModelProto = gs.export_onnx(self._graph, do_type_check=False)
        del model.graph.sparse_initializer[:]
        model.graph.sparse_initializer.extend(self._source.model.graph.sparse_initializer)
        del model.opset_import[:]
        model.opset_import.extend(self._source.model.opset_import)
        model.ir_version = max(self._source.model.ir_version, 4)
        self._list_inputs(model)
        for group in groups:
            ones = np.ones(group.players, np.float32)
            tensor = onnx.numpy_helper.from_array(ones, mask_name(group.name))
            model.graph.initializer.append(tensor)
        restore(model, self._whole)
        return model

    def _list_inputs(self, model: onnx.ModelProto) -> None:
        """Initializers that are inputs too stay so: ONNX Runtime takes others for constant.

        Before IR version 4 all of them are inputs, and constant.
        """
        if self._source.model.ir_version < 4:
            return
        listed = {info.name for info in model.graph.input}
        stored = {tensor.name for tensor in model.graph.initializer} - listed
        model.graph.input.extend(i for i in self._source.model.graph.input if i.name in stored)

    def _surrounded(self, node: Any) -> list[Any]:
        return [*self._before.get(id(node), ()), node, *self._behind.get(id(node), ())]


def _id(node: Any) -> str:
    return str(next((tensor.name for tensor in node.outputs if tensor.name), node.name))
