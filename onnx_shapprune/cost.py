"""What a model costs for any choice of players, without cutting it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from .passes.graph import Graph, node_id
from .passes.shapes import static_size
from .passes.stored import FILLER, absorbed, leaf, roots
from .types import Array, BoolArray, ChannelGroup, Cost, Cut, Shape, Slot
from .weight_files import file_size

Quantity = Literal["macs", "parameters", "bytes"]

_NOT_WEIGHTS = frozenset((onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING))
_KERNELS = {  # operator: inputs that hold a kernel
    "Conv": (1,),
    "ConvTranspose": (1,),
    "DeformConv": (1,),
    "FusedConv": (1,),
    "FusedGemm": (1,),
    "Gemm": (1,),
    "MatMul": (1,),
    "ConvInteger": (1,),
    "MatMulInteger": (1,),
    "QLinearConv": (3,),
    "QLinearMatMul": (3,),
    "QGemm": (3,),
    "GRU": (1, 2),
    "LSTM": (1, 2),
    "RNN": (1, 2),
}


@dataclass(frozen=True, eq=False)
class _Stored:
    """One stored constant (or one copy of it) and the cuts that shrink it.

    ``uses`` are multiply-accumulates per element, each with the cuts of what is multiplied.
    """

    shape: tuple[int, ...]
    itemsize: float
    is_weight: bool
    uses: tuple[tuple[float, tuple[tuple[str, Cut], ...]], ...]
    cuts: tuple[tuple[str, Cut], ...]
    copy_of: int = -1

    def kept(self, kept: Mapping[str, BoolArray]) -> dict[int, BoolArray]:
        """Positions that stay, per axis that is cut."""
        axes: dict[int, BoolArray] = {}
        for group, cut in self.cuts:
            positions = cut.kept_positions(kept[group])
            axes[cut.axis] = axes.get(cut.axis, positions) & positions
        return axes

    def used(self, kept: Mapping[str, BoolArray]) -> float:
        """Multiply-accumulates per element that are left."""
        return sum(uses * _share_left(cuts, kept) for uses, cuts in self.uses)


class CostModel:
    """Costs of a model as a function of the players kept in each group."""

    def __init__(
        self,
        graph: Graph,
        groups: Sequence[ChannelGroup],
        observed: Mapping[str, Shape] | None = None,
    ) -> None:
        """Index the model.

        Args:
            graph: Index of the model, made with shapes for a batch of one.
            groups: Its groups.
            observed: Shapes of tensors as they are at run time, where inference can't tell.
        """
        self._graph = graph
        self._observed = observed or {}
        self._file_bytes = file_size(graph.source)
        self.groups = {group.name: group for group in groups}
        self.unmeasured: tuple[str, ...] = tuple(self._unmeasured())
        uses = {slot: self._uses(slot) for slot in self._kernels()}
        self._leaves = {slot: leaf(graph, slot) or slot for slot in uses}
        self._computed = [*self._computed_kernels(groups, uses)]
        self._stored = [*self._index(groups, uses), *self._unstored(groups, uses)]

    def full(self) -> dict[str, BoolArray]:
        """The choice that keeps everything."""
        return {name: np.ones(group.players, bool) for name, group in self.groups.items()}

    def cost(self, kept: Mapping[str, BoolArray]) -> Cost:
        """Cost with only the players ``kept[group]`` (bool[players]) of each group."""
        macs = sum(full * _share_left(cuts, kept) for full, cuts in self._computed)
        parameters, size = 0, float(self._file_bytes)
        axes: list[dict[int, BoolArray]] = []
        for stored in self._stored:
            axes.append(stored.kept(kept))
            full = static_size(stored.shape) or 0
            left = _size_left(stored.shape, axes[-1])
            macs += stored.used(kept) * left
            if stored.copy_of >= 0:
                if _same(axes[-1], axes[stored.copy_of]):
                    continue
                full = 0
            parameters += left if stored.is_weight else 0
            size -= (full - left) * stored.itemsize
        channels = sum(int(kept[name].sum()) for name in self.groups)
        return Cost(round(macs), parameters, round(size), channels)

    def macs_by_node(self) -> dict[str, int]:
        """Multiply-accumulates of each node that has a kernel, nothing removed."""
        found: dict[str, float] = {}
        for slot in self._kernels():
            name = self._graph.nodes[slot.node].input[slot.index]
            size = static_size(self.shape(name) or ()) or 0
            found[slot.node] = found.get(slot.node, 0.0) + self._uses(slot) * size
        return {name: round(macs) for name, macs in found.items()}

    def parameters_of(self, node: onnx.NodeProto) -> int:
        """Stored numbers that a node reads, in any form; shared ones count for each reader."""
        stored = {root for name in node.input if name for root in roots(self._graph, name)}
        weights = [root for root in stored if self._elem_type(root) not in _NOT_WEIGHTS]
        return sum(static_size(self._graph.constant_shape(root) or ()) or 0 for root in weights)

    # --- indexing

    def shape(self, tensor: str) -> Shape | None:
        """Shape at a batch of one."""
        return self._observed.get(tensor) or self._graph.shape(tensor)

    def _unmeasured(self) -> Iterator[str]:
        """Tensors around kernels whose size is not known."""
        for slot in self._kernels():
            node = self._graph.nodes[slot.node]
            for name in (node.input[0], node.input[slot.index], slot.node):
                if static_size(self.shape(name) or (None,)) is None:
                    yield name

    def _kernels(self) -> Iterator[Slot]:
        for ident, node in self._graph.nodes.items():
            for index in _KERNELS.get(node.op_type, ()):
                if index < len(node.input) and node.input[index]:
                    yield Slot(ident, index)

    def _uses(self, slot: Slot) -> float:
        """Multiply-accumulates of a node per element of its kernel, in one run."""
        node = self._graph.nodes[slot.node]
        kernel = self.shape(node.input[slot.index]) or ()
        source, result = self.shape(node.input[0]) or (), self.shape(slot.node) or ()
        if node.op_type == "ConvTranspose":
            return _ratio(source, kernel[:1])
        if "Conv" in node.op_type:
            return _ratio(result, kernel[:1])
        if node.op_type in ("GRU", "LSTM", "RNN"):
            return _ratio(source, source[-1:])
        if len(kernel) < 2:  # a vector: its axis is gone from the result
            return float(static_size(result) or 0)
        return _ratio(result, kernel[:-2] + result[-1:])

    def _computed_kernels(
        self, groups: Sequence[ChannelGroup], uses: Mapping[Slot, float]
    ) -> Iterator[tuple[float, tuple[tuple[str, Cut], ...]]]:
        """Multiply-accumulates with kernels that are not cut, and the cuts that save some."""
        cut = self._cuts_of_computed(groups, uses)
        for slot, macs in uses.items():
            if leaf(self._graph, slot) is None and slot not in cut:
                size = static_size(self.shape(self._operand(slot)) or ()) or 0
                yield macs * size, tuple(self._cuts_around(groups, slot))

    def _unstored(
        self, groups: Sequence[ChannelGroup], uses: Mapping[Slot, float]
    ) -> Iterator[_Stored]:
        """Kernels that are computed, and cut all the same: like stored ones that weigh nothing."""
        for slot, cuts in self._cuts_of_computed(groups, uses).items():
            shape = self.shape(self._operand(slot)) or ()
            sizes = tuple(size for size in shape if isinstance(size, int))
            yield _Stored(sizes, 0.0, False, ((uses[slot], ()),), tuple(cuts))

    def _operand(self, slot: Slot) -> str:
        return str(self._graph.nodes[slot.node].input[slot.index])

    def _cuts_of_computed(
        self, groups: Sequence[ChannelGroup], slots: Iterable[Slot]
    ) -> dict[Slot, list[tuple[str, Cut]]]:
        """Cuts of what is stored in place of computed kernels, or of the shapes they fill."""
        by_slot = {**_cuts_by_filled_slot(groups), **_cuts_by_slot(groups)}
        found = {s: by_slot.get(self._filled(s)) for s in slots if leaf(self._graph, s) is None}
        return {slot: cuts for slot, cuts in found.items() if cuts}

    def _filled(self, slot: Slot) -> Slot:
        """Where the shape is stored that the kernel at a node input fills; else that input."""
        maker = self._graph.producers.get(self._operand(slot))
        return Slot(node_id(maker), 0) if maker and maker.op_type == FILLER else slot

    def _cuts_around(self, groups: Sequence[ChannelGroup], slot: Slot) -> Iterator[tuple[str, Cut]]:
        """Cuts of what a product of two activations makes and of what it sums over."""
        source = self._graph.nodes[slot.node].input[0]
        last = len(self.shape(source) or ()) - 1
        for group in groups:
            for cut in group.shapes:
                if cut.tensor == slot.node or (cut.tensor, cut.axis) == (source, last):
                    yield group.name, cut

    def _index(
        self, groups: Sequence[ChannelGroup], uses: Mapping[Slot, float]
    ) -> Iterator[_Stored]:
        cuts = _cuts_by_slot(groups)
        self._gone = absorbed(self._graph, cuts)
        beside = {self._leaves[s]: found for s, found in self._cuts_beside(groups).items()}
        uses = {self._leaves[slot]: macs for slot, macs in uses.items()}
        count = 0
        for root in self._graph.constants():
            first = count
            for slots in self._variants(root, cuts):
                wanted = cuts.get(slots[0], []) if slots else []
                used = tuple((uses[s], beside.get(s, ())) for s in slots if s in uses)
                yield self._stored_constant(root, wanted, used, first if count > first else -1)
                count += 1

    def _variants(self, root: str, cuts: Mapping[Slot, list[tuple[str, Cut]]]) -> list[list[Slot]]:
        """Readers of a constant that stay, sorted by how they want it cut."""
        found: dict[tuple[object, ...], list[Slot]] = {}
        if self._graph.is_exposed(root):
            found[()] = []  # the original stays, for whoever else reads it
        slots = self._graph.shared_slots(root)
        for slot in (slot for slot in slots if slot.node not in self._gone):
            wanted = cuts.get(slot, [])
            key = tuple((group, cut.axis, cut.owner.tobytes()) for group, cut in wanted)
            found.setdefault(key, []).append(slot)
        return list(found.values()) or [[]]

    def _cuts_beside(
        self, groups: Sequence[ChannelGroup]
    ) -> dict[Slot, tuple[tuple[str, Cut], ...]]:
        """Cuts of a MatMul's rows: they pass through it, and it has fewer to multiply."""
        found: dict[Slot, tuple[tuple[str, Cut], ...]] = {}
        for slot in self._kernels():
            name = self._graph.nodes[slot.node].input[0]
            last = len(self.shape(name) or ()) - 1
            if self._graph.nodes[slot.node].op_type == "MatMul":
                cuts = ((g.name, c) for g in groups for c in g.shapes if c.tensor == name)
                found[slot] = tuple((group, cut) for group, cut in cuts if cut.axis != last)
        return found

    def _elem_type(self, root: str) -> int:
        proto = self._graph.constant_proto(root)
        if proto is not None:
            return proto.data_type
        return _elem_type_of_list(np.asarray(self._graph.constant(root)))

    def _stored_constant(
        self,
        root: str,
        cuts: Sequence[tuple[str, Cut]],
        uses: tuple[tuple[float, tuple[tuple[str, Cut], ...]], ...],
        copy_of: int,
    ) -> _Stored:
        elem_type = self._elem_type(root)
        return _Stored(
            shape=self._graph.constant_shape(root) or (),
            itemsize=_itemsize(elem_type),
            is_weight=elem_type not in _NOT_WEIGHTS,
            uses=uses,
            cuts=tuple(cuts),
            copy_of=copy_of,
        )


def _elem_type_of_list(array: Array) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def _cuts_by_slot(groups: Sequence[ChannelGroup]) -> dict[Slot, list[tuple[str, Cut]]]:
    found: dict[Slot, list[tuple[str, Cut]]] = {}
    for group in groups:
        for cut in group.weights:
            for slot in cut.readers:
                found.setdefault(slot, []).append((group.name, cut))
    return found


def _cuts_by_filled_slot(groups: Sequence[ChannelGroup]) -> dict[Slot, list[tuple[str, Cut]]]:
    """The numbers of a stored shape that follow, as cuts of the tensor that has that shape."""
    found: dict[Slot, list[tuple[str, Cut]]] = {}
    for group in groups:
        for follow in group.follows:
            cut = Cut(follow.slot.node, follow.entry, follow.owner)
            found.setdefault(follow.slot, []).append((group.name, cut))
    return found


def _share_left(cuts: Sequence[tuple[str, Cut]], kept: Mapping[str, BoolArray]) -> float:
    share = 1.0
    for group, cut in cuts:
        share *= float(cut.kept_positions(kept[group]).mean())
    return share


def _size_left(shape: tuple[int, ...], kept: Mapping[int, BoolArray]) -> int:
    size = 1
    for axis, dim in enumerate(shape):
        size *= int(kept[axis].sum()) if axis in kept else dim
    return size


def _same(one: Mapping[int, BoolArray], other: Mapping[int, BoolArray]) -> bool:
    """Whether two cuts of the same constant leave the same; untouched axes are whole."""
    return all(np.array_equal(_whole(one, axis), _whole(other, axis)) for axis in {*one, *other})


def _whole(kept: Mapping[int, BoolArray], axis: int) -> Array:
    """Positions removed along an axis."""
    return np.flatnonzero(~kept[axis]) if axis in kept else np.zeros(0, np.int64)


def _ratio(shape: Shape, by: Shape) -> float:
    return (static_size(shape) or 0) / max(static_size(by) or 1, 1)


def _itemsize(elem_type: int) -> float:
    if elem_type == onnx.TensorProto.STRING:
        return 0.0
    return onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize
