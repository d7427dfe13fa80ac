"""The pruned file is the source minus channels: every field of the protobuf is compared.

What may differ is worked out here from the plan alone, slot by slot. All the rest must be
the same: names, order, metadata, opsets, functions, doc strings, and what nobody has
thought of yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path as File
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message

from everything import everything, messages, stamped
from onnx_shapprune.bench import Absent
from onnx_shapprune.model_io import load_model, save_model
from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.folding import folded
from onnx_shapprune.passes.functions import flattened
from onnx_shapprune.passes.graph import Graph, attribute
from onnx_shapprune.passes.removal import remove
from onnx_shapprune.pipeline import make_plan, open_bench
from onnx_shapprune.types import BoolArray, ChannelGroup, FloatArray, GroupPlan, Plan, Slot
from onnx_shapprune.verification import verify
from protodiff import UNKNOWN, Difference, Path, differences
from test_rules import CASES, graph_of, net_of
from zoo import ZOO, Array, Model, choice, samples, with_recorded_shapes

STORAGE = frozenset(
    ("dims", "raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")
)
NUMBERS = frozenset(("i", "ints", "f", "floats"))
SIZE = ("type", "tensor_type", "shape")

each_net = pytest.mark.parametrize("name", sorted(ZOO))
each_absent = pytest.mark.parametrize("absent", ["zero", "mean"])


# --- what a plan lets change ------------------------------------------------------------------


@dataclass(eq=False)
class Wanted:
    """What a plan wants of one node input's constant."""

    cuts: list[tuple[int, BoolArray]] = field(default_factory=list)
    indexed: list[BoolArray] = field(default_factory=list)
    reduced: dict[int, int] = field(default_factory=dict)
    computed: Array | None = None
    shift: FloatArray | None = None

    def of(self, source: Array) -> Array:
        """The constant as it has to be."""
        array = source if self.computed is None else self.computed
        if self.shift is not None:
            array = array + self.shift
        for kept in self.indexed:
            array = np.reshape([kept[:index].sum() for index in array.ravel()], array.shape)
        keep: dict[int, BoolArray] = {}
        for axis, kept in self.cuts:
            keep[axis] = keep.get(axis, kept) & kept
        for axis, kept in keep.items():
            array = np.take(array, np.flatnonzero(kept), axis)
        flat = list(array.ravel())
        for entry, by in ((e, by) for e, by in self.reduced.items() if by):
            flat[entry] = less(int(flat[entry]), by)
        return np.reshape(flat, array.shape)


def less(number: int, by: int) -> int:
    """A number without what leaves; one that counts from the end never becomes the front."""
    return 2**63 - 1 if number < 0 <= number - by else number - by


class Licence:
    """What a plan lets change in a model, and into what."""

    def __init__(self, source: Model, pruned: Model, plan: Plan) -> None:
        self.source, self.pruned = Graph(source), Graph(pruned)
        self.slots: dict[Slot, Wanted] = {}
        self.attributes: dict[tuple[str, str], dict[int, int]] = {}
        self.narrower: dict[tuple[str, int], BoolArray] = {}
        self.shifts: dict[str, FloatArray] = {}
        for part in plan.groups:
            if not part.kept.all():
                self._read(part)
        for node in self.shifts:
            self._shift(node)
        self.roots = {self._root(slot) for slot in self.slots}

    def _read(self, part: GroupPlan) -> None:
        for cut in part.group.weights:
            for slot in cut.readers:
                self._at(slot).cuts.append((cut.axis, cut.kept_positions(part.kept)))
                if self.source.constant(self._root(slot)) is None:
                    self._at(slot).computed = folded(self.source, self._root(slot), limited=False)
        for cut in part.group.indices:
            for slot in cut.readers:
                self._at(slot).indexed.append(cut.kept_positions(part.kept))
        for cut in part.group.shapes:
            kept = cut.kept_positions(part.kept)
            key = (cut.tensor, cut.axis)
            self.narrower[key] = self.narrower.get(key, kept) & kept
        self._follow(part)
        for shift in part.shifts:
            added = shift.response @ ~part.kept
            self.shifts[shift.node] = self.shifts.get(shift.node, 0) + added

    def _follow(self, part: GroupPlan) -> None:
        once = {(f.slot, f.attribute, f.entry): f for f in part.group.follows}
        for f in once.values():
            by = f.sign * int((~np.append(part.kept, True)[f.owner]).sum())
            if f.attribute:
                places = self.attributes.setdefault((f.slot.node, f.attribute), {})
            else:
                places = self._at(f.slot).reduced
                self._at(f.slot).computed = f.computed
            places[f.entry] = places.get(f.entry, 0) + by

    def _shift(self, name: str) -> None:
        """A bias is to take a node's shift in, or a new one is."""
        node, wanted = self.source.nodes[name], self._at(Slot(name, 2))
        beta = attribute(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
        has_bias = len(node.input) > 2 and node.input[2] and beta
        wanted.shift = self.shifts[name] / (beta if has_bias else 1.0)
        if not has_bias:
            wanted.computed = np.zeros(len(wanted.shift))
        for (tensor, _), kept in self.narrower.items():
            if tensor == name and not wanted.cuts:
                wanted.cuts.append((-1, kept))

    def _at(self, slot: Slot) -> Wanted:
        return self.slots.setdefault(slot, Wanted())

    def _root(self, slot: Slot) -> str:
        inputs = self.source.nodes[slot.node].input
        name = inputs[slot.index] if slot.index < len(inputs) else ""
        return self.source.constant_root(name) or name

    # --- is it allowed?

    def allows(self, found: Difference) -> bool:
        """Whether the plan explains a difference; in a body it is like elsewhere."""
        match out_of_bodies(found.path):
            case ("graph", "initializer", name):
                return found.source is None and self._is_fresh(name)
            case ("graph", "initializer", name, storage):
                return storage in STORAGE and name in self.roots
            case ("graph", "input", name):
                return found.source is None and self._is_fresh(name) and self._is_old()
            case ("graph", "node", *rest):
                return self._allows_node(tuple(rest), found)
            case ("graph", "input" | "value_info", *rest):
                return self._allows_info(tuple(rest), found)
        return False

    def _is_fresh(self, name: str) -> bool:
        """Whether a new constant is read where the plan asks for one, and nowhere else."""
        readers = self.pruned.constant_slots(name)
        return bool(readers) and all(slot in self.slots for slot in readers)

    def _is_old(self) -> bool:
        return bool(self.source.model.ir_version < 4)

    def _allows_node(self, path: Path, found: Difference) -> bool:
        match path:
            case (name,):
                return found.pruned is None and name in self._unread
            case (name, "input"):
                return self._allows_inputs(name, found.source, found.pruned)
            case (name, "attribute", "beta", "f"):
                return name in self.shifts and found.pruned == 1.0
            case (name, "attribute", _, "t", storage):
                return storage in STORAGE and name in self.roots
            case (name, "attribute", attribute, numbers) if numbers in NUMBERS:
                return name in self.roots or self._reduces(name, attribute, found)
        return False

    def _allows_inputs(self, node: str, source: list[str], pruned: list[str]) -> bool:
        pairs = enumerate(zip_longest(source, pruned, fillvalue=""))
        return all(Slot(node, i) in self.slots for i, (one, other) in pairs if one != other)

    def _reduces(self, node: str, attribute: str, found: Difference) -> bool:
        places = self.attributes.get((node, attribute))
        if places is None:
            return False
        if -1 in places:
            return bool(found.pruned == found.source - places[-1])
        return found.pruned == [less(n, places.get(i, 0)) for i, n in enumerate(found.source)]

    @cached_property
    def _unread(self) -> set[str]:
        """Nodes that made nothing but numbers which constants have taken the place of."""
        pending = [self._root(slot) for slot, w in self.slots.items() if w.computed is not None]
        found: set[str] = set()
        while pending:
            maker = self.source.producers.get(pending.pop())
            if maker is not None and not any(self._is_read(name) for name in maker.output):
                found.add(maker.output[0])
                pending += maker.input
        return found

    def _is_read(self, name: str) -> bool:
        exposed = self.pruned.captured | self.pruned.outputs
        return bool(self.pruned.readers.get(name)) or name in exposed

    def _allows_info(self, path: Path, found: Difference) -> bool:
        match path:
            case (name,):
                return found.pruned is None and name in self._unread
            case (name, *size) if tuple(size) == SIZE:
                return found.pruned is None and self._is_form(name)
            case (name, "type", "sequence_type", "elem_type", *size) if ("type", *size) == SIZE:
                return found.pruned is None
            case (name, *size, "dim", axis, "dim_value") if tuple(size) == SIZE:
                return found.pruned in self._sizes(name, int(axis))
        return False

    def _is_form(self, name: str) -> bool:
        """Whether a tensor is made of constants alone, and some of them have changed."""
        maker = self.source.producers.get(name)
        if maker is None:
            return False
        forms = [self._is_form(source) for source in maker.input]
        roots = [self.source.constant_root(source) for source in maker.input]
        is_stored = all(root or form for root, form in zip(roots, forms, strict=True))
        return is_stored and (any(forms) or not self.roots.isdisjoint(roots))

    def _sizes(self, name: str, axis: int) -> set[int]:
        """Sizes that an axis may have: that of a cut tensor, or of a constant as it is read."""
        kept = self.narrower.get((name, axis))
        value = self.source.constant(name)
        if value is None:
            return set() if kept is None else {int(kept.sum())}
        wanted = [w for slot, w in self.slots.items() if self._root(slot) == name]
        return {w.of(value).shape[axis] for w in wanted}


def out_of_bodies(path: Path) -> Path:
    """The path from the innermost graph on."""
    match path:
        case ("graph", "node", _, "attribute", _, "g", *rest):
            return out_of_bodies(("graph", *rest))
    return path


def surplus(source: Model, pruned: Model, plan: Plan) -> list[str]:
    """Differences that the plan does not explain."""
    pruned = without_added_sums(source, pruned, plan)
    licence = Licence(source, pruned, plan)
    return [str(d) for d in differences(source, pruned) if not licence.allows(d)]


def without_added_sums(source: Model, pruned: Model, plan: Plan) -> Model:
    """Take the Add behind each MatMul away again whose inputs' means had to go somewhere."""
    copy = onnx.ModelProto()
    copy.CopyFrom(pruned)
    nodes, makers = copy.graph.node, Graph(source).producers
    shifted = {s.node for p in plan.groups for s in p.shifts if not p.kept.all()}
    for name in (n for n in sorted(shifted) if makers[n].op_type == "MatMul"):
        added = next(n for n in nodes if n.output[0] == name)
        before = next(n for n in nodes if n.output[0] == added.input[0])
        assert (added.op_type, before.op_type) == ("Add", "MatMul")
        assert list(nodes).index(added) == list(nodes).index(before) + 1
        assert sum(added.input[1] in n.input for n in nodes) == 1
        before.output[0] = name
        for entries in (copy.graph.initializer, copy.graph.input):
            for bias in [e for e in entries if e.name == added.input[1]]:
                entries.remove(bias)
        nodes.remove(added)
    return copy


def assert_constants(source: Model, pruned: Model, plan: Plan) -> None:
    """Every node reads the constants that it should: cut where the plan says so, else the same."""
    pruned = without_added_sums(source, pruned, plan)
    licence = Licence(source, pruned, plan)
    for name, node in licence.pruned.nodes.items():
        if licence.pruned.constant_root(name) is not None:
            continue  # an alias: those who read it are asked
        old = list(licence.source.nodes[name].input)
        for index, tensor in enumerate(node.input):
            known = licence.source.constant(old[index]) if index < len(old) else None
            found = licence.pruned.constant(tensor)
            if found is not None:
                expected = licence.slots.get(Slot(name, index), Wanted()).of(known)
                assert_equal(found, expected, f"input {index} of {node.name}")


def dangling(model: Model) -> set[str]:
    """Recorded shapes of tensors that there are none of."""
    graph = Graph(model)
    return {i.name for i in model.graph.value_info} - {*graph.producers, *graph.constants()}


def assert_equal(found: Array, expected: Array, place: str) -> None:
    """Equal to the last bit; sums of floats up to rounding."""
    assert found.shape == expected.shape, place
    if expected.dtype == found.dtype or found.dtype.kind in "SUOb":
        np.testing.assert_array_equal(found, expected, err_msg=place)
    else:
        loose = 1e-2 if found.dtype.itemsize < 4 else 1e-5
        np.testing.assert_allclose(
            found.astype(np.float64), expected, rtol=loose, atol=loose, err_msg=place
        )


# --- on all that there is -----------------------------------------------------------------------


def check(model: Model, pruned: Model, plan: Plan) -> None:
    """Nothing differs but what the plan explains."""
    assert_functions(model, pruned)
    model, pruned = (without_functions(model, each) for each in (model, pruned))
    assert surplus(model, pruned, plan) == []
    assert_constants(model, pruned, plan)
    assert dangling(pruned) <= dangling(model)


def assert_functions(model: Model, pruned: Model) -> None:
    """A function is as it was, but for its nodes and, where its calls differ, its name."""
    source = {function.name: function for function in model.functions}
    for function in pruned.functions:
        stem = re.sub(r"_[0-9]+$", "", function.name)
        one, other = onnx.FunctionProto(), onnx.FunctionProto()
        one.CopyFrom(source.get(function.name) or source[stem])
        other.CopyFrom(function)
        for each in (one, other):
            for name in ("node", "value_info", "name"):
                each.ClearField(name)
        assert list(differences(one, other)) == []


def without_functions(model: Model, pruned: Model) -> Model:
    """The functions written out; constants that they have got are stored with the others."""
    known = Graph(model).producers
    flat = onnx.ModelProto()
    flat.CopyFrom(flattened(pruned).model)
    made = [n for n in flat.graph.node if n.op_type == "Constant" and n.output[0] not in known]
    for node in made:
        tensor = flat.graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        flat.graph.node.remove(node)
    for node in flat.graph.node:
        for entry in [e for e in node.metadata_props if e.key.startswith("onnx_shapprune.")]:
            node.metadata_props.remove(entry)
    return flat


def zero_plan(groups: Sequence[ChannelGroup], seed: int) -> Plan:
    """A random choice of players, absent ones zero."""
    kept = choice(groups, seed)
    return Plan("", tuple(GroupPlan(group, kept[group.name]) for group in groups))


@each_net
@each_absent
@pytest.mark.parametrize("recorded", [False, True], ids=["as built", "shapes recorded"])
def test_nets_lose_nothing_but_channels(name: str, absent: Absent, recorded: bool) -> None:
    model = ZOO[name].build()
    model = with_recorded_shapes(model) if recorded else model
    of = open_bench(model, ZOO[name].samples(4), absent=absent, provider="cpu")
    for seed in (0, 1, 2):
        plan = make_plan(of, choice(of.groups, seed))
        check(model, remove(model, of.model.sha256, plan), plan)


@pytest.mark.parametrize("name", sorted(CASES))
def test_operators_lose_nothing_but_channels(name: str) -> None:
    model = with_recorded_shapes(net_of(name))
    for seed in (0, 1):
        plan = zero_plan(find_groups(graph_of(model)).groups, seed)
        check(model, remove(model, "", plan), plan)


# --- a model that says everything -----------------------------------------------------------------

ABSENT_FIELDS = {
    "TensorProto.segment": "the checker refuses it",
    "TensorProto.external_data": "weights are brought in when a model is read",
    "Segment.begin": "part of a segment",
    "Segment.end": "part of a segment",
}


def pruned_file(model: Model, absent: Absent, folder: File) -> tuple[Model, Model, Plan]:
    """A model read from a file, what was written for it, and the plan."""
    onnx.save(model, folder / "in.onnx")
    source = load_model(folder / "in.onnx")
    of = open_bench(source, samples(model, 4), absent=absent, provider="cpu")
    plan = make_plan(of, choice(of.groups, 1))
    pruned = remove(source.proto, source.sha256, plan)
    assert verify(of.graph, source, pruned, plan, of.calibration) <= 1e-5
    save_model(pruned, folder / "out.onnx")
    return model, onnx.load(folder / "out.onnx"), plan


@pytest.mark.parametrize("build", [everything, lambda: stamped(everything())])
@each_absent
def test_everything_else_stays(build: Callable[[], Model], absent: Absent, tmp_path: File) -> None:
    model, pruned, plan = pruned_file(build(), absent, tmp_path)
    assert [part.group.players for part in plan.groups] == [6, 4]
    check(model, pruned, plan)


def test_every_field_is_filled() -> None:
    """What a later version of onnx adds is to be added there too."""
    found = {(type(m).__name__, f.name) for m in messages(everything()) for f, _ in m.ListFields()}
    every = {(d.name, f.name) for d in descriptors(onnx.ModelProto.DESCRIPTOR) for f in d.fields}
    assert {f"{message}.{name}" for message, name in every - found} == set(ABSENT_FIELDS)


def descriptors(root: Any) -> list[Any]:
    """Descriptors of a message and of all that it may hold."""
    found, pending = {}, [root]
    while pending:
        one = pending.pop()
        if one.full_name not in found:
            found[one.full_name] = one
            pending += [f.message_type for f in one.fields if f.message_type is not None]
    return list(found.values())


# --- the comparison itself ----------------------------------------------------------------------


def leaves(message: Message) -> Iterator[tuple[Message, Any]]:
    """All fields that hold something, with the messages that they are in."""
    for part in messages(message):
        for described, _ in part.ListFields():
            yield part, described


@contextmanager
def spoiled(message: Message, described: Any) -> Iterator[None]:
    """Change what a field holds, for a while."""
    value, name = getattr(message, described.name), described.name
    if isinstance(value, MutableSequence):
        value.append(value[-1])
        yield
        del value[-1]
    elif described.message_type is not None:
        kept = type(value).FromString(value.SerializeToString())
        message.ClearField(name)
        yield
        value.CopyFrom(kept)
        getattr(message, name).CopyFrom(kept)
    else:
        setattr(message, name, another(value, described))
        yield
        setattr(message, name, value)


def another(value: Any, described: Any) -> Any:
    """Another value that the field may hold."""
    if described.enum_type is not None:
        return next(v.number for v in described.enum_type.values if v.number != value)
    if isinstance(value, bytes):
        return value + b"x"
    return f"{value}x" if isinstance(value, str) else value + 1


def test_any_other_change_is_noticed(tmp_path: File) -> None:
    """Each field that should have stayed is changed in turn."""
    model, pruned, plan = pruned_file(everything(), "zero", tmp_path)
    reference = onnx.ModelProto()
    reference.CopyFrom(pruned)
    licensed = [d.path for d in differences(model, pruned)]
    places = [*leaves(pruned)]
    noticed = 0
    for message, described in reversed(places):  # what is inside of a message before the message
        with spoiled(message, described):
            changed = [d.path for d in differences(reference, pruned)]
            assert changed, described.full_name
            if all(path[: len(known)] != known for path in changed for known in licensed):
                assert surplus(model, pruned, plan), described.full_name
                noticed += 1
        assert pruned == reference
    assert noticed > 0.9 * len(places)


@pytest.mark.parametrize("field_name", ["node", "initializer", "value_info", "metadata_props"])
def test_another_order_is_noticed(field_name: str, tmp_path: File) -> None:
    model, pruned, plan = pruned_file(everything(), "zero", tmp_path)
    of = pruned if field_name == "metadata_props" else pruned.graph
    entries = [*getattr(of, field_name)]
    of.ClearField(field_name)
    getattr(of, field_name).extend(reversed(entries))
    assert surplus(model, pruned, plan)


def test_a_field_that_only_a_later_version_knows_is_noticed(tmp_path: File) -> None:
    model, pruned, plan = pruned_file(stamped(everything()), "zero", tmp_path)
    message = next(t for t in pruned.graph.initializer if t.name == "c0")
    message.DiscardUnknownFields()
    places = [found.split(":")[0] for found in surplus(model, pruned, plan)]
    assert places == [
        f"graph/initializer/c0{inner}/{UNKNOWN}" for inner in ("", "/metadata_props/0")
    ]
