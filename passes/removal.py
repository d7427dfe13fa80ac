"""The model minus channels: names, order, metadata and everything else stay.

Works on the protobuf itself, so that a diff against the source shows only sliced
constants, the numbers that had to follow, and narrower recorded shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from onnx_shapprune.errors import ModelError, OptionError
from onnx_shapprune.types import (
    Array,
    BoolArray,
    ChannelGroup,
    FloatArray,
    GroupPlan,
    Plan,
    Shift,
    Slot,
)

from .bodies import bodies
from .folding import folded
from .functions import belonging, flattened, folded_back
from .graph import Graph, attribute, node_id
from .shifts import as_dtype
from .stored import forms
from .weights import detached, fill, restore

_BIAS = 2
"""Input of a Conv or Gemm."""


@dataclass(eq=False)
class Edit:
    """What one node input's constant becomes: addend and indices, then slices, then numbers."""

    addend: FloatArray | None = None
    kept: dict[int, BoolArray] = field(default_factory=dict)
    indexed: BoolArray | None = None
    numbers: dict[int, int] = field(default_factory=dict)

    def keep(self, axis: int, kept: BoolArray) -> None:
        """Restrict an axis further."""
        self.kept[axis] = self.kept.get(axis, np.ones(len(kept), bool)) & kept

    def reduce(self, entry: int, by: int) -> None:
        """Reduce a number."""
        self.numbers[entry] = self.numbers.get(entry, 0) + by

    def renumber(self, kept: BoolArray) -> None:
        """The values are indices into an axis of which ``kept`` stays."""
        self.indexed = kept if self.indexed is None else self.indexed & kept

    def add(self, addend: FloatArray) -> None:
        """Add to the whole constant."""
        self.addend = addend if self.addend is None else self.addend + addend

    def key(self) -> tuple[object, ...]:
        """Equal for edits with equal results."""
        added = None if self.addend is None else self.addend.tobytes()
        kept = tuple((axis, self.kept[axis].tobytes()) for axis in sorted(self.kept))
        indexed = None if self.indexed is None else self.indexed.tobytes()
        return added, indexed, kept, tuple(sorted(self.numbers.items()))

    def apply(self, array: Array) -> Array:
        """The constant after the edit, same dtype."""
        result = array
        if self.addend is not None:
            result = as_dtype(result.astype(np.float64) + self.addend, array.dtype)
        if self.indexed is not None:
            result = (np.cumsum(self.indexed) - 1)[result].astype(array.dtype)
        for axis, kept in self.kept.items():
            result = result.compress(kept, axis=axis)
        if self.numbers:
            result = result.copy()
        for entry, removed in self.numbers.items():
            flat = result.reshape(-1)
            flat[entry] = _reduced(int(flat[entry]), removed, result.dtype)
        return result


def _reduced(value: int, by: int, dtype: np.dtype[Any]) -> int:
    """A number less what leaves; one from the end on must not become 0, which is the front."""
    return int(np.iinfo(dtype).max) if value < 0 <= value - by else value - by


def remove(model: onnx.ModelProto, sha256: str, plan: Plan) -> onnx.ModelProto:
    """A copy of the model without the players that the plan does not keep.

    Args:
        model: The source; not changed.
        sha256: Digest of the source, as the loader gives it.
        plan: What stays.

    Raises:
        ModelError: The plan was made for another model.
        OptionError: A group's ``kept`` has not one entry per player.
    """
    if plan.model_sha256 != sha256:
        raise ModelError(
            f"the plan was made for the model {plan.model_sha256[:12]}…, this is {sha256[:12]}…",
            "make a plan for this model",
        )
    surgeon = _Surgeon(model)
    for part in plan.groups:
        if part.kept.shape != (part.group.players,):
            raise OptionError(
                f"the plan for group '{part.group.name}' has {part.kept.size} entries "
                f"for {part.group.players} players"
            )
        if not part.kept.all():
            surgeon.plan(part)
    return surgeon.operate()


class _Surgeon:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._source = model
        self._flat = flattened(model)
        self._model, self._whole = detached(self._flat.model)
        self._graph = Graph(self._model)
        self._graph.detached = self._whole
        self._edits: dict[Slot, Edit] = {}
        self._left: dict[str, dict[int, BoolArray]] = {}
        self._shifts: dict[str, FloatArray] = {}
        self._stale: set[str] = set()
        self._computed: dict[Slot, Array] = {}
        self._dead: list[str] = []
        self._taken = _names(self._model.graph)

    # --- collecting

    def plan(self, part: GroupPlan) -> None:
        """Take in what one group asks for."""
        for cut in part.group.weights:
            for slot in cut.readers:
                self._require_stored(slot)
                self._edit(slot).keep(cut.axis, cut.kept_positions(part.kept))
        for cut in part.group.shapes:
            left, kept = self._left.setdefault(cut.tensor, {}), cut.kept_positions(part.kept)
            left[cut.axis] = left.get(cut.axis, np.ones(len(kept), bool)) & kept
        for cut in part.group.indices:
            for slot in cut.readers:
                self._edit(slot).renumber(cut.kept_positions(part.kept))
        self._follow(part.group, part.kept)
        for shift in part.shifts:
            self._add_shift(shift, ~part.kept)

    def _follow(self, group: ChannelGroup, kept: BoolArray) -> None:
        once = {(f.slot, f.attribute, f.entry): f for f in group.follows}
        for follow in once.values():
            removed = follow.sign * int((~np.append(kept, True)[follow.owner]).sum())
            if follow.computed is not None:
                self._computed[follow.slot] = follow.computed
            if not removed:
                continue
            if follow.attribute:
                node = self._graph.nodes[follow.slot.node]
                _reduce_attribute(node, follow.attribute, follow.entry, removed)
            else:
                self._edit(follow.slot).reduce(follow.entry, removed)

    def _add_shift(self, shift: Shift, absent: BoolArray) -> None:
        added = shift.response @ absent
        self._shifts[shift.node] = self._shifts.get(shift.node, 0) + added

    def _require_stored(self, slot: Slot) -> None:
        """A constant that is computed in the source is to be stored, if its form won't do."""
        tensor = self._tensor(slot)
        if self._graph.constant_root(tensor) is None and slot not in self._computed:
            value = folded(self._graph, tensor, limited=False)
            assert value is not None
            self._computed[slot] = value

    def _tensor(self, slot: Slot) -> str:
        return str(self._graph.nodes[slot.node].input[slot.index])

    def _edit(self, slot: Slot) -> Edit:
        return self._edits.setdefault(slot, Edit())

    # --- cutting

    def operate(self) -> onnx.ModelProto:
        """Carry everything out."""
        for ident in self._shifts:
            if self._bias(ident):
                self._require_stored(Slot(ident, _BIAS))
        self._store_computed()
        matmuls = [ident for ident in self._shifts if not self._fold_into_bias(ident)]
        for root in self._roots():
            self._edit_constant(root)
        for ident in matmuls:
            self._append_bias(ident)
        self._narrow_recorded_shapes()
        self._bury()
        restore(self._model, self._whole)
        return folded_back(self._model, self._flat, self._source)

    def _fold_into_bias(self, ident: str) -> bool:
        """Add a shift to the bias of a Conv or Gemm; False where there is no place for one."""
        node = self._graph.nodes[ident]
        if node.op_type == "MatMul":
            return False
        shift = self._shifts[ident]
        beta = float(attribute(node, "beta", 1.0)) if node.op_type == "Gemm" else 1.0
        slot = Slot(ident, _BIAS)
        if not self._bias(ident) or beta == 0:
            self._new_bias(node, np.zeros(len(shift)))
            _set_float(node, "beta", 1.0)
        else:
            self._widen_bias(node, len(shift))
            shift = shift / beta
        self._edit(slot).add(shift)
        return True

    def _bias(self, ident: str) -> str:
        """The bias of a Conv or Gemm; empty where there is none."""
        node = self._graph.nodes[ident]
        has_place = node.op_type != "MatMul" and len(node.input) > _BIAS
        return node.input[_BIAS] if has_place else ""

    def _widen_bias(self, node: onnx.NodeProto, width: int) -> None:
        """Store a broadcast bias of a Gemm as wide as its output."""
        value = self._value(Slot(node_id(node), _BIAS))
        if value.shape[-1:] != (width,):
            self._new_bias(node, np.broadcast_to(value, (*value.shape[:-1], width)))

    def _new_bias(self, node: onnx.NodeProto, values: Array) -> None:
        """Give a node a bias as wide as its output, to be cut like its kernel's outputs."""
        name = self._store_new(f"{node_id(node)}_bias", as_dtype(values, self._dtype(node)))
        del node.input[_BIAS:]
        node.input.append(name)
        slot = Slot(node_id(node), _BIAS)
        self._graph.readers[name].append(slot)
        self._edits[slot] = Edit()
        kept = self._outputs_left(slot.node)
        if kept is not None:
            self._edits[slot].keep(values.ndim - 1, kept)

    def _outputs_left(self, ident: str) -> BoolArray | None:
        """Which outputs of a linear node stay; None for all."""
        return next(iter(self._left.get(ident, {}).values()), None)

    def _append_bias(self, ident: str) -> None:
        """Put an Add behind a MatMul, which has no bias of its own."""
        node = self._graph.nodes[ident]
        kept = self._outputs_left(ident)
        shift = self._shifts[ident] if kept is None else self._shifts[ident][kept]
        bias = self._store_new(f"{ident}_bias", as_dtype(shift, self._dtype(node)))
        node.output[0] = self._unique(f"{ident}_unbiased")
        add = onnx.helper.make_node("Add", [node.output[0], bias], [ident], name=f"{bias}_add")
        add.metadata_props.extend(belonging(node))
        unbiased = node.output[0]
        position = next(i for i, n in enumerate(self._model.graph.node) if unbiased in n.output)
        self._model.graph.node.insert(position + 1, add)

    def _store_computed(self) -> None:
        """Constants take the place of what is computed, where its form can't be cut."""
        fixed: dict[str, str] = {}
        for slot, value in self._computed.items():
            name = self._tensor(slot)
            if name not in fixed:
                fixed[name] = self._store_new(f"{name}_fixed", value)
            self._graph.readers[name].remove(slot)
            self._graph.nodes[slot.node].input[slot.index] = fixed[name]
            self._graph.readers[fixed[name]].append(slot)
            self._drop_unread(name)

    def _drop_unread(self, name: str) -> None:
        """Remove the node that makes a tensor which nothing reads any more, and so on."""
        maker = self._graph.producers.get(name)
        if maker is None or any(self._is_read(output) for output in maker.output if output):
            return
        for source in maker.input:
            if source:
                slots = self._graph.readers[source]
                slots[:] = [slot for slot in slots if slot.node != node_id(maker)]
        self._dead.append(node_id(maker))
        for source in maker.input:
            self._drop_unread(source)

    def _bury(self) -> None:
        """Take dead nodes out, with what is recorded of their outputs."""
        dead = {ident: self._graph.nodes[ident] for ident in self._dead}
        gone = {name for node in dead.values() for name in node.output}
        for body in self._graph.bodies.values():
            for node in [node for node in body.node if node_id(node) in dead]:
                body.node.remove(node)
            for info in [info for info in body.value_info if info.name in gone]:
                body.value_info.remove(info)

    def _is_read(self, name: str) -> bool:
        return bool(self._graph.readers.get(name)) or self._graph.is_exposed(name)

    def _roots(self) -> Iterator[str]:
        """Stored constants that an edit concerns, each once."""
        names = (self._tensor(slot) for slot in list(self._edits))
        yield from dict.fromkeys(self._graph.constant_root(name) or name for name in names)

    def _edit_constant(self, root: str) -> None:
        """Change a constant in place where all its readers agree, else give them copies."""
        slots = self._graph.constant_slots(root)
        edits = {slot: self._edits.get(slot, Edit()) for slot in slots}
        variants = {edit.key(): edit for edit in edits.values()}
        unchanged = Edit().key()
        names = {unchanged: root} if unchanged in variants or self._graph.is_exposed(root) else {}
        asked = [key for key in variants if key not in names]
        in_place = asked.pop(0) if asked and not names else None
        for key in asked:
            names[key] = self._store_new(root, variants[key].apply(self._constant(root)))
        if in_place is not None:
            names[in_place] = root
            self._store(root, variants[in_place].apply(self._constant(root)))
        self._point(edits, names, root)

    def _point(
        self, edits: dict[Slot, Edit], names: dict[tuple[object, ...], str], root: str
    ) -> None:
        for slot, edit in edits.items():
            name = names[edit.key()]
            if name != root:
                self._graph.nodes[slot.node].input[slot.index] = name

    def _narrow_recorded_shapes(self) -> None:
        """Shapes of activations shrink; those of changed constants and of sequences are dropped."""
        for body in self._graph.bodies.values():
            self._narrow_recorded(body.value_info)

    def _narrow_recorded(self, recorded: Any) -> None:
        for info in (info for info in recorded if info.name in self._stale):
            info.type.tensor_type.ClearField("shape")
        for info in (info for info in recorded if info.type.HasField("sequence_type")):
            info.type.sequence_type.elem_type.tensor_type.ClearField("shape")
        for info in recorded:
            for axis, kept in self._left.get(info.name, {}).items():
                dims = info.type.tensor_type.shape.dim
                if axis < len(dims):
                    _narrow(dims[axis], int(kept.sum()))

    # --- constants

    def _value(self, slot: Slot) -> Array:
        return self._constant(self._tensor(slot))

    def _constant(self, name: str) -> Array:
        array = self._graph.constant(name)
        assert array is not None
        return array

    def _dtype(self, node: onnx.NodeProto) -> np.dtype[Any]:
        """Type of a linear node's kernel, and so of its bias."""
        kind = self._graph.elem_type(node.input[1])
        return onnx.helper.tensor_dtype_to_np_dtype(kind or onnx.TensorProto.FLOAT)

    def _store(self, root: str, array: Array) -> None:
        """Replace a stored constant's value; its other fields stay."""
        proto = self._graph.constant_proto(root)
        if proto is None:
            _store_list(self._graph.producers[root], array)
        else:
            fill(proto, array)
        self._record_shape(root, array.shape)
        self._stale.update(forms(self._graph, root))

    def _record_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Correct what is recorded of a constant; initializers may be listed as inputs too."""
        bodies = self._graph.bodies.values()
        for info in (i for body in bodies for i in (*body.input, *body.value_info)):
            if info.name == name:
                for dim, size in zip(info.type.tensor_type.shape.dim, shape, strict=False):
                    _narrow(dim, size)

    def _store_new(self, base: str, array: Array) -> str:
        name = self._unique(base)
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = self._model.graph.initializer.add(name=name, data_type=kind)
        fill(tensor, array)
        self._graph.adopt(tensor)
        if self._model.ir_version < 4:  # every initializer must be an input there
            info = onnx.helper.make_tensor_value_info(name, tensor.data_type, array.shape)
            self._model.graph.input.append(info)
        return name

    def _unique(self, base: str) -> str:
        name, count = base, 0
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def _reduce_attribute(node: onnx.NodeProto, name: str, entry: int, by: int) -> None:
    found = next(a for a in node.attribute if a.name == name)
    if entry < 0:
        found.i -= by
    else:
        found.ints[entry] = _reduced(found.ints[entry], by, np.dtype(np.int64))


def _set_float(node: onnx.NodeProto, name: str, value: float) -> None:
    """Change an attribute that is there; the others have that value by default."""
    for found in node.attribute:
        if found.name == name:
            found.f = value


def _narrow(dim: onnx.TensorShapeProto.Dimension, size: int) -> None:
    """Correct a recorded size; a symbol stays one."""
    if dim.HasField("dim_value"):
        dim.dim_value = size


def _store_list(node: onnx.NodeProto, array: Array) -> None:
    """Replace the value of a Constant node that holds a list or a number."""
    found = node.attribute[0]
    fresh = onnx.helper.make_attribute(found.name, array.tolist())
    for name in ("ints", "floats"):
        found.ClearField(name)
    found.MergeFrom(fresh)


def _names(graph: onnx.GraphProto) -> set[str]:
    """All names that are taken, those in bodies included."""
    names = {info.name for info in (*graph.input, *graph.output)}
    names |= {tensor.name for tensor in graph.initializer}
    names |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        names |= {*node.input, *node.output, node.name}
        for _, body in bodies(node):
            names |= _names(body)
    return names
