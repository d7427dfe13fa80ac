"""Damaged model files: every one must end in a result that runs or in one `Error:` line.

    python tools/corrupt.py                    1,000 files, some minutes
    python tools/corrupt.py --quick            200 of them
    python tools/corrupt.py --keep DIR         failing files, with what was said about them
    python tools/corrupt.py --case 17          one file, with all that the command says
    python tools/corrupt.py --json FILE        also as data

Each file is pruned in a process of its own (forked from one that has imported everything),
with 2 GB of address space and 10 s. Exit 1 if one of them ends in another way than it may.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import json
import os
import re
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

MEMORY = 2 << 30
SECONDS = 10
COMMAND = (
    *("prune", "model.onnx", "-o", "out.onnx", "--data", "random:4"),
    *("--keep", "0.7", "--estimator", "l1"),
)

Rng = np.random.Generator
Model = onnx.ModelProto
Nodes = Sequence[onnx.NodeProto]

INTEGERS = (
    *(0, 1, -1, 2, -2, 3, 7, 100, 255, 2**15, 2**20, 10**8),
    *(2**31 - 1, 2**31, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63)),
)
FLOATS = (0.0, -1.0, 0.5, 1e-45, 3e38, float("nan"), float("inf"), -float("inf"))
TEXTS = (
    *("", " ", "x", "y", "conv1", "kept of conv1", "kept of :1", "../../out", "a\nb", "\0", "%s"),
    *("ä" * 9, "n" * 100_000, "Conv", "NOTSET", "SAME_UPPER", "ai.onnx", "com.microsoft"),
)


@dataclass(eq=False)
class Damage:
    """A file on its way to ruin: ``content``, once there, counts instead of ``model``."""

    model: Model
    rng: Rng
    content: bytes | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    def pick(self, options: Sequence[Any]) -> Any:
        """One of several."""
        return options[int(self.rng.integers(len(options)))] if len(options) else None

    def number(self) -> int:
        """An integer that nobody expects."""
        return int(self.pick(INTEGERS))

    @property
    def nodes(self) -> Nodes:
        """The nodes."""
        return self.model.graph.node

    def node(self, *operators: str) -> onnx.NodeProto:
        """A node of one of these kinds, if there is one; else any."""
        wanted = [node for node in self.nodes if node.op_type in operators]
        found: onnx.NodeProto = self.pick(wanted or self.nodes)
        return found

    def tensor(self) -> TensorProto:
        """A stored tensor; one is added where the model has none."""
        held = [a.t for node in self.nodes for a in node.attribute if a.HasField("t")]
        tensors = [*self.model.graph.initializer, *held]
        if not tensors:
            tensors = [self.model.graph.initializer.add(name="spare", data_type=1, dims=[1])]
        found: TensorProto = self.pick(tensors)
        return found

    def info(self) -> onnx.ValueInfoProto:
        """A graph input or output, or a recorded shape."""
        graph = self.model.graph
        found: onnx.ValueInfoProto = self.pick([*graph.input, *graph.value_info, *graph.output])
        return found

    def bytes(self) -> bytes:
        """The file."""
        return self.model.SerializeToString() if self.content is None else self.content


Corruption = Callable[[Damage], None]

CORRUPTIONS: dict[str, Corruption] = {}


def corruption(function: Corruption) -> Corruption:
    """Register a way to damage a file."""
    CORRUPTIONS[function.__name__] = function
    return function


# --- bytes ------------------------------------------------------------------------------


@corruption
def flipped_bits(d: Damage) -> None:
    """Some bits anywhere."""
    content = np.frombuffer(d.bytes(), np.uint8).copy()
    for _ in range(d.pick((1, 2, 8, 64))):
        content[d.rng.integers(content.size)] ^= 1 << d.rng.integers(8)
    d.content = content.tobytes()


@corruption
def flipped_structure(d: Damage) -> None:
    """Some bits beside the weights."""
    whole = d.bytes()
    content, beside = np.frombuffer(whole, np.uint8).copy(), np.ones(len(whole), bool)
    for raw in (t.raw_data for t in d.model.graph.initializer if len(t.raw_data) > 16):
        start = whole.find(raw)
        beside[start : start + len(raw)] = start < 0
    for place in d.rng.choice(np.flatnonzero(beside), d.pick((1, 1, 2, 4))):
        content[place] ^= 1 << d.rng.integers(8)
    d.content = content.tobytes()


@corruption
def overwritten_run(d: Damage) -> None:
    """A run of random, zero or one bytes."""
    content, length = bytearray(d.bytes()), d.pick((1, 2, 8, 40, 400))
    start = int(d.rng.integers(len(content)))
    run = d.pick((d.rng.bytes(length), b"\0" * length, b"\xff" * length))
    content[start : start + length] = run[: len(content) - start]
    d.content = bytes(content)


@corruption
def truncated(d: Damage) -> None:
    """The end is missing, also in the middle of nothing at all."""
    content = d.bytes()
    d.content = content[: d.pick((0, 1, len(content) - 1, int(d.rng.integers(len(content)))))]


@corruption
def removed_run(d: Damage) -> None:
    """Some bytes are missing."""
    content = d.bytes()
    start, length = int(d.rng.integers(len(content))), d.pick((1, 2, 3, 30, 300))
    d.content = content[:start] + content[start + length :]


@corruption
def repeated_run(d: Damage) -> None:
    """Some bytes come twice: fields too, as protobuf merges what comes twice."""
    content = d.bytes()
    start, length = int(d.rng.integers(len(content))), d.pick((3, 30, len(content)))
    d.content = content[: start + length] + content[start : start + length] + content[start:]


@corruption
def twice(d: Damage) -> None:
    """Two models in one file, which protobuf takes for one."""
    d.content = d.bytes() + d.pick([model.SerializeToString() for model in sources().values()])


@corruption
def no_text(d: Damage) -> None:
    """A name that is no UTF-8."""
    name = d.pick([name for node in d.nodes for name in (*node.output, node.op_type) if name])
    d.content = d.bytes().replace(name.encode(), b"\xff" * len(name.encode()))


# --- any field of the proto -------------------------------------------------------------


def messages(root: Message) -> Iterator[Message]:
    """A message and all that are in it."""
    yield root
    for descriptor, value in root.ListFields():
        if descriptor.message_type is not None:
            for each in value if descriptor.is_repeated else [value]:
                yield from messages(each)


def _all(d: Damage) -> list[Message]:
    return list(messages(d.model))


def _extreme(d: Damage, descriptor: FieldDescriptor) -> Any:
    """A value that fits the field's type and nothing else."""
    kinds = FieldDescriptor
    if descriptor.enum_type is not None:
        return d.pick(descriptor.enum_type.values).number
    if descriptor.cpp_type in (kinds.CPPTYPE_FLOAT, kinds.CPPTYPE_DOUBLE):
        return d.pick(FLOATS)
    if descriptor.type == kinds.TYPE_BYTES:
        return d.pick((b"", b"\xff", d.rng.bytes(8), d.rng.bytes(1000)))
    if descriptor.cpp_type == kinds.CPPTYPE_STRING:
        return d.pick(TEXTS)
    low, high = {
        kinds.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
        kinds.CPPTYPE_UINT64: (0, 2**64 - 1),
    }.get(descriptor.cpp_type, (-(2**63), 2**63 - 1))
    return int(np.clip(float(number := d.number()), low, high) and min(max(number, low), high))


def _scalars(message: Message) -> list[FieldDescriptor]:
    set_ones = [descriptor for descriptor, _ in message.ListFields()]
    return [f for f in set_ones if f.message_type is None and f.name != "raw_data"]


@corruption
def extreme_field(d: Damage) -> None:
    """A field that is there gets another value."""
    message = d.pick([m for m in _all(d) if _scalars(m)])
    descriptor = d.pick(_scalars(message))
    if descriptor.is_repeated:
        values = getattr(message, descriptor.name)
        values[int(d.rng.integers(len(values)))] = _extreme(d, descriptor)
    else:
        setattr(message, descriptor.name, _extreme(d, descriptor))


@corruption
def new_field(d: Damage) -> None:
    """A field that was not there."""
    message = d.pick(_all(d))
    known = {descriptor.name for descriptor, _ in message.ListFields()}
    absent = [f for f in message.DESCRIPTOR.fields if f.name not in known]
    descriptor = d.pick(absent) if absent else None
    if descriptor is None:
        return
    if descriptor.message_type is not None:
        like = [m for m in _all(d) if descriptor.message_type == m.DESCRIPTOR]
        target = getattr(message, descriptor.name)
        target = target.add() if descriptor.is_repeated else target
        target.SetInParent() if not like else target.CopyFrom(_copy(d.pick(like)))
    elif descriptor.is_repeated:
        getattr(message, descriptor.name).extend([_extreme(d, descriptor)] * d.pick((1, 2, 5)))
    else:
        setattr(message, descriptor.name, _extreme(d, descriptor))


@corruption
def cleared_field(d: Damage) -> None:
    """A field less, its weights included."""
    message = d.pick([m for m in _all(d) if m.ListFields()])
    message.ClearField(d.pick(message.ListFields())[0].name)


@corruption
def exchanged(d: Damage) -> None:
    """A part of the model stands in the place of another of its kind."""
    every = [m for m in _all(d) if m is not d.model]
    target = d.pick(every)
    like = [m for m in every if m.DESCRIPTOR == target.DESCRIPTOR]
    target.CopyFrom(_copy(d.pick(like)))


def _copy(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


@corruption
def another_list(d: Damage) -> None:
    """A list loses, repeats or reverses entries."""
    lists = [(m, f) for m in _all(d) for f, _ in m.ListFields() if f.is_repeated]
    message, descriptor = d.pick(lists)
    values = getattr(message, descriptor.name)
    entries = [_copy(v) if isinstance(v, Message) else v for v in values]
    place = int(d.rng.integers(len(entries)))
    changed = (entries[:place] + entries[place + 1 :], entries + entries[place:], entries[::-1], [])
    del values[:]
    values.extend(d.pick(changed))


@corruption
def several(d: Damage) -> None:
    """Three of these at once."""
    for _ in range(3):
        d.pick((extreme_field, new_field, cleared_field, exchanged, another_list))(d)


# --- tensors ----------------------------------------------------------------------------


@corruption
def swapped_dims(d: Damage) -> None:
    """A tensor whose axes are in another order, or one number."""
    tensor = d.tensor()
    dims = list(tensor.dims)
    d.rng.shuffle(dims)
    tensor.dims[:] = d.pick((dims[::-1], dims, [int(np.prod(dims))], [1, *dims], dims[:-1]))


@corruption
def other_dims(d: Damage) -> None:
    """A tensor with one size that its values don't fill; the values are made to fit or not."""
    tensor = d.tensor()
    if not tensor.dims:
        tensor.dims.append(1)
    place = int(d.rng.integers(len(tensor.dims)))
    tensor.dims[place] = d.pick((tensor.dims[place] + 1, max(tensor.dims[place] - 1, 0), *INTEGERS))
    if d.pick((True, False)) and 0 <= _size(tensor.dims) < 10**6:
        values = np.zeros(tuple(tensor.dims), helper.tensor_dtype_to_np_dtype(tensor.data_type))
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _size(dims: Sequence[int]) -> int:
    size = 1
    for dim in dims:
        size *= dim if dim >= 0 else 2**64
    return size


@corruption
def huge_dims(d: Damage) -> None:
    """Sizes whose product is far beyond 2**64, or just beyond memory, or zero beside."""
    tensor = d.tensor()
    shapes = ([2**40], [2**40] * 2, [2**33, 0], [2**31, 2**31, 4], [2**62, 4], [-1, -1])
    tensor.dims[:] = d.pick(shapes)


@corruption
def wrong_dtype(d: Damage) -> None:
    """A tensor of another type than its bytes."""
    d.tensor().data_type = d.pick(range(28))


@corruption
def cast_tensor(d: Damage) -> None:
    """A tensor that is sound, but of a type that does not fit its reader."""
    tensor = d.tensor()
    kinds = (np.float16, np.float64, np.int64, np.int32, np.uint8, np.bool_, np.complex64)
    values = np.nan_to_num(numpy_helper.to_array(tensor)).astype(d.pick(kinds))
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


@corruption
def words(d: Damage) -> None:
    """A tensor of strings where numbers should be."""
    tensor = d.tensor()
    values = np.full(tuple(tensor.dims), "0.5", object)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


@corruption
def odd_values(d: Damage) -> None:
    """NaN, infinity, nothing, or the largest numbers there are."""
    tensor = d.tensor()
    values = numpy_helper.to_array(tensor).copy()
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values.reshape(-1)[: d.pick((1, values.size))] = d.pick(FLOATS)
    elif values.dtype.kind == "i":
        values.reshape(-1)[: d.pick((1, values.size))] = d.number()
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


@corruption
def values_twice(d: Damage) -> None:
    """A tensor with raw bytes and numbers, or with too few or too many of either."""
    tensor = d.tensor()
    raw = tensor.raw_data
    match d.pick(("both", "typed", "short", "long", "uneven")):
        case "both":
            tensor.float_data.extend([0.5] * 4)
        case "typed":
            tensor.ClearField("raw_data")
            tensor.float_data.extend([0.5] * d.pick((0, 1, 3, 1000)))
        case "short":
            tensor.raw_data = raw[: len(raw) // 2]
        case "long":
            tensor.raw_data = raw * 2
        case _:
            tensor.raw_data = raw[:-1]


@corruption
def external(d: Damage) -> None:
    """Weights in a file beside, at a place that isn't there, or in a file that can't be."""
    tensor = d.tensor()
    d.files["weights.bin"] = tensor.raw_data + b"rest"
    entries = {"location": "weights.bin", "offset": "0", "length": str(len(tensor.raw_data))}
    entries[d.pick(("offset", "length"))] = d.pick(
        ("-1", "1", "7", "1e3", "", "many", str(2**40), str(2**63), str(2**70), "0x10", " 4")
    )
    entries["location"] = d.pick(("weights.bin",) * 4 + ("", ".", "..", "/dev/zero", "model.onnx"))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        if d.rng.random() < 0.9:
            tensor.external_data.add(key=key, value=value)


@corruption
def sparse(d: Damage) -> None:
    """A sparse weight whose indices, sizes or values are wrong."""
    initializers = d.model.graph.initializer
    if not initializers:
        return
    tensor = d.pick(initializers)
    found = d.model.graph.sparse_initializer.add(dims=tensor.dims)
    count = d.pick((0, 1, 3))
    indices = d.pick(
        (
            np.full(count, d.number(), np.int64),
            np.arange(count)[::-1].astype(np.int64),
            np.full((count, len(tensor.dims)), d.number(), np.int64),
            np.zeros((2, 3, 4), np.int64),
            np.zeros(count, np.float32),
        )
    )
    found.indices.CopyFrom(numpy_helper.from_array(indices, d.pick(("", "indices"))))
    values = np.ones(d.pick((count, count + 2)), np.float32)
    found.values.CopyFrom(numpy_helper.from_array(values, tensor.name))
    if d.pick((True, False)):
        found.dims[:] = d.pick(([], [-1], [2**40], [2**62, 4], [2, 2], [0]))
    if d.pick((True, True, False)):
        initializers.remove(tensor)


@corruption
def sparse_constant(d: Damage) -> None:
    """A Constant node with a sparse value that is wrong."""
    values = numpy_helper.from_array(np.ones(2, np.float32), "v")
    indices = numpy_helper.from_array(np.int64(d.pick(([0, 1], [1, 0], [0, 2**40], [-1, 0]))))
    value = helper.make_sparse_tensor(values, indices, d.pick(([4], [2**40], [-4], [2, 2], [])))
    node = helper.make_node("Constant", [], [d.tensor().name or "c"], sparse_value=value)
    for tensor in [t for t in d.model.graph.initializer if t.name == node.output[0]]:
        d.model.graph.initializer.remove(tensor)
    d.model.graph.node.insert(0, node)


# --- graph ------------------------------------------------------------------------------


@corruption
def cycle(d: Damage) -> None:
    """A node reads what it makes itself, or what a later one makes."""
    place = int(d.rng.integers(len(d.nodes)))
    later = d.pick(d.nodes[place:])
    if d.nodes[place].input and later.output:
        d.nodes[place].input[0] = later.output[0]


@corruption
def shuffled(d: Damage) -> None:
    """Nodes in any order."""
    nodes = [_copy(node) for node in d.nodes]
    d.rng.shuffle(nodes)
    del d.model.graph.node[:]
    d.model.graph.node.extend(nodes)


@corruption
def same_names(d: Damage) -> None:
    """Two things with one name: nodes, tensors, weights, inputs, outputs."""
    one, other = d.node(), d.node()
    graph = d.model.graph
    match d.pick(("nodes", "tensors", "weights", "weight and tensor", "inputs", "outputs", "all")):
        case "nodes":
            one.name = other.name
        case "tensors" if one.output and other.output:
            one.output[0] = other.output[0]
        case "weights":
            graph.initializer.add().CopyFrom(_copy(d.tensor()))
        case "weight and tensor" if one.output:
            d.tensor().name = one.output[0]
        case "inputs":
            graph.input.add().CopyFrom(_copy(d.info()))
        case "outputs":
            graph.output.add().CopyFrom(_copy(d.info()))
        case _:
            for node in graph.node:
                node.name = "all"


@corruption
def odd_names(d: Damage) -> None:
    """A name that nobody gives, everywhere where it stands."""
    node = d.node()
    name, fresh = d.pick([*node.input, *node.output] or [""]), d.pick(TEXTS)
    for each in d.nodes:
        each.input[:] = [fresh if n == name else n for n in each.input]
        each.output[:] = [fresh if n == name else n for n in each.output]
    graph = d.model.graph
    for holder in (*graph.input, *graph.output, *graph.initializer):
        holder.name = fresh if holder.name == name else holder.name
    node.name = d.pick((node.name, fresh))


@corruption
def dangling(d: Damage) -> None:
    """A node reads what nobody makes, or nothing."""
    node = d.node()
    if node.input:
        node.input[int(d.rng.integers(len(node.input)))] = d.pick(("nobody", "", "nobody"))


@corruption
def fewer_or_more(d: Damage) -> None:
    """A node with too few or too many inputs or outputs."""
    node = d.node()
    names = d.pick((node.input, node.output))
    changed = d.pick(([], list(names)[:-1], [*names, "more"], [*names, *names], [*names, "", ""]))
    del names[:]
    names.extend(changed)


@corruption
def missing_outputs(d: Damage) -> None:
    """The graph has no outputs, others than it makes, or those that it reads."""
    graph = d.model.graph
    match d.pick(("none", "nobody's", "input", "weight", "untyped", "middle")):
        case "none":
            del graph.output[:]
        case "nobody's":
            graph.output[0].name = "nobody"
        case "input":
            graph.output[0].name = d.pick([*graph.input, *graph.output]).name
        case "weight":
            graph.output[0].name = d.tensor().name
        case "untyped":
            graph.output[0].ClearField("type")
        case _:
            graph.output[0].name = d.pick([name for node in d.nodes for name in node.output])


@corruption
def other_input(d: Damage) -> None:
    """An input of another shape or type, or of none."""
    kind = d.pick(list(d.model.graph.input) or [d.info()]).type
    dims = kind.tensor_type.shape.dim
    match d.pick(("dim", "dim", "symbol", "rank", "no shape", "type", "sequence", "nothing")):
        case "dim" if dims:
            d.pick(dims).dim_value = d.number()
        case "symbol":
            for dim in dims:
                dim.dim_param = d.pick(("N", "", "N", "-1", "a*b", "\0"))
        case "rank":
            del dims[d.pick((0, 1, 2)) :]
        case "no shape":
            kind.tensor_type.ClearField("shape")
        case "type":
            kind.tensor_type.elem_type = d.pick(range(28))
        case "sequence":
            inner = _copy(kind)
            kind.Clear()
            d.pick((kind.sequence_type, kind.optional_type)).elem_type.CopyFrom(inner)
        case _:
            kind.Clear()


@corruption
def recorded_lies(d: Damage) -> None:
    """Recorded shapes and types that are wrong."""
    for node in d.nodes:
        for name in filter(None, node.output):
            shape = d.pick((None, [], [1], [-1, 2], ["N", d.number(), 6, 6], [2**40] * 4))
            info = helper.make_tensor_value_info(name, d.pick((0, 1, 1, 1, 7, 8)), shape)
            d.model.graph.value_info.append(info)


@corruption
def other_operator(d: Damage) -> None:
    """A node of another operator."""
    d.node().op_type = d.pick(operators())


@corruption
def other_domain(d: Damage) -> None:
    """A node of a domain that isn't imported, or that has no such operator."""
    node = d.node()
    node.domain = d.pick(("acme", "com.microsoft", "ai.onnx.ml", "ai.onnx", "local", "\0"))
    if d.pick((True, False)):
        d.model.opset_import.add(domain=node.domain, version=d.pick((0, 1, 2, 2**40)))


@corruption
def alone(d: Damage) -> None:
    """A graph without nodes, weights or inputs."""
    graph = d.model.graph
    for name in d.pick((["node"], ["initializer"], ["input"], ["node", "initializer"])):
        graph.ClearField(name)


# --- attributes -------------------------------------------------------------------------


@corruption
def attribute_type(d: Damage) -> None:
    """An attribute of another type."""
    node = d.node("Conv", "Gemm", "Constant", "ReduceMean", "Concat", "MaxPool")
    if not node.attribute:
        return
    values = (1, 0.5, "word", [1, 2], [0.5], ["a", "b"], TensorProto(), onnx.GraphProto())
    old = d.pick(node.attribute)
    fresh = helper.make_attribute(old.name, d.pick(values))
    if d.pick((True, False)):
        old.CopyFrom(fresh)
    else:
        old.type = d.pick(AttributeProto.AttributeType.values())


@corruption
def attribute_value(d: Damage) -> None:
    """Sizes, axes and counts that can't be."""
    node = d.node("Conv", "Gemm", "Transpose", "ReduceMean", "Concat", "MaxPool", "AveragePool")
    names = (
        *("group", "strides", "pads", "dilations", "kernel_shape", "axis", "axes", "perm", "to"),
        *("transB", "auto_pad", "keepdims", "ceil_mode", "output_shape", "alpha", "epsilon"),
    )
    name = d.pick([a.name for a in node.attribute] * 2 + list(names))
    count = d.pick((0, 1, 2, 4, 5))
    value = [d.number() for _ in range(count)] if name in names[1:5] + names[6:8] else d.number()
    if name == "auto_pad":
        value = d.pick(TEXTS)
    for old in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(old)
    node.attribute.append(helper.make_attribute(name, value, attr_type=7 if value == [] else None))


@corruption
def groups(d: Damage) -> None:
    """A number of groups that does not fit."""
    node = d.node("Conv")
    for old in [a for a in node.attribute if a.name == "group"]:
        node.attribute.remove(old)
    node.attribute.append(helper.make_attribute("group", d.pick((0, -1, 2, 5, 2**31, 2**62))))


@corruption
def attribute_twice(d: Damage) -> None:
    """An attribute that comes twice, has no name, or refers to a function's."""
    node = d.node("Conv", "Gemm")
    if not node.attribute:
        return
    old = d.pick(node.attribute)
    match d.pick(("twice", "nameless", "reference", "empty")):
        case "twice":
            node.attribute.add().CopyFrom(_copy(old))
        case "nameless":
            old.name = ""
        case "reference":
            old.ref_attr_name = "outer"
        case _:
            name, kind = old.name, old.type
            old.Clear()
            old.name, old.type = name, kind


@corruption
def stored_shape(d: Damage) -> None:
    """Numbers that operators take sizes from: Reshape, Resize, Expand, Tile and others."""
    op, dtype = d.pick(
        (
            *(("Reshape", np.int64), ("Expand", np.int64), ("Tile", np.int64), ("Pad", np.int64)),
            *(("ConstantOfShape", np.int64), ("Unsqueeze", np.int64), ("Squeeze", np.int64)),
            *(("Slice", np.int64), ("Gather", np.int64), ("TopK", np.int64), ("Split", np.int64)),
        )
    )
    made = d.node("Relu", "Conv", "Gemm").output
    sizes = np.asarray([d.number() for _ in range(d.pick((0, 1, 2, 4, 8)))], dtype)
    name = d.pick(("sizes", "sizes", "unstored"))
    if name == "sizes":
        d.model.graph.initializer.append(numpy_helper.from_array(sizes, "sizes"))
    kept = made[0] if made else "y"
    if made:
        made[0] = "before"
    inputs = [name] if op == "ConstantOfShape" else ["before", name, *([name] * (op == "Slice"))]
    place = next((i for i, n in enumerate(d.nodes) if "before" in n.output), 0)
    d.model.graph.node.insert(place + 1, helper.make_node(op, inputs, [kept]))


# --- depth ------------------------------------------------------------------------------


@corruption
def nested(d: Damage) -> None:
    """Bodies in bodies in bodies; built in place, as protobuf copies no more than 33 of them."""
    source, graph = d.node().output[0] or "x", d.model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    if d.pick((True, False)):
        graph.output.append(_value("deep"))
    for level in range(d.pick((1, 3, 10, 20, 30, 60))):
        node = graph.node.add(op_type="If", input=["condition"], output=["deep"])
        node.attribute.append(helper.make_attribute("else_branch", _empty()))
        then = node.attribute.add(name="then_branch", type=AttributeProto.GRAPH)
        graph = then.g
        graph.name = f"level{level}"
        graph.output.append(_value("deep"))
    graph.node.add(op_type="Identity", input=[source], output=["deep"])


def _empty() -> onnx.GraphProto:
    node = helper.make_node("Constant", [], ["nothing"], value_float=1.0)
    return helper.make_graph([node], "empty", [], [_value("nothing")])


def _value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


@corruption
def odd_bodies(d: Damage) -> None:
    """An If, Loop or Scan whose bodies are missing, empty or of another form."""
    op = d.pick(("If", "Loop", "Scan", "SequenceMap"))
    bodies = (_empty(), onnx.GraphProto(), _copy(d.model.graph))
    names = d.pick((["then_branch", "else_branch"], ["body"], ["then_branch"], []))
    source = d.node()
    inputs = [*source.output, "", *source.input][: d.pick((1, 2, 3))]
    node = helper.make_node(op, inputs, ["bodied"], **{n: d.pick(bodies) for n in names})
    d.model.graph.node.append(node)
    if d.pick((True, False)):
        d.model.graph.output.append(_value("bodied"))


@corruption
def functions(d: Damage) -> None:
    """Functions that call themselves or each other, or that aren't what is called."""
    for name, other in d.pick(
        ((("A", "A"),), (("A", "B"), ("B", "A")), (("A", "Relu"), ("A", "Neg")), (("B", "Relu"),))
    ):
        domain = "" if other in ("Relu", "Neg") else "local"
        node = helper.make_node(other, ["a"], ["b"], domain=domain)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
        function = helper.make_function("local", name, ["a"], ["b"], [node], opsets)
        d.model.functions.append(function)
    d.model.opset_import.add(domain="local", version=1)
    node = d.node("Relu", "Sigmoid", "Identity")
    node.op_type, node.domain = "A", "local"


@corruption
def long_chain(d: Damage) -> None:
    """Hundreds of nodes in a row, behind a weight or an activation."""
    op = d.pick(("Identity", "Relu", "Unsqueeze", "Cast"))
    start = d.pick((d.tensor().name, d.node().output[0], d.node("Conv").input[-1]))
    fields: dict[str, Any] = {"Cast": {"to": 1}, "Unsqueeze": {"axes": [0]}}.get(op, {})
    length, names = d.pick((50, 400, 1500)), [start]
    for number in range(length):
        names.append(f"link{number}")
    chain = [helper.make_node(op, [a], [b], **fields) for a, b in itertools.pairwise(names)]
    nodes = [_copy(node) for node in d.nodes]
    place = next((i + 1 for i, node in enumerate(nodes) if start in node.output), 0)
    for node in nodes[place:]:
        node.input[:] = [names[-1] if name == start else name for name in node.input]
    del d.model.graph.node[:]
    d.model.graph.node.extend([*nodes[:place], *chain, *nodes[place:]])


@corruption
def doubling(d: Damage) -> None:
    """A tensor that is concatenated with itself again and again, or a sum of itself."""
    op, name = d.pick(("Concat", "Add", "Mul")), d.node("Relu", "Conv").output[0]
    for number in range(d.pick((5, 20, 40))):
        fields = {"axis": 1} if op == "Concat" else {}
        inputs, name = [name, name], f"double{number}"
        d.model.graph.node.append(helper.make_node(op, inputs, [name], **fields))
    d.model.graph.output.append(_value(name))


# --- the model --------------------------------------------------------------------------


@corruption
def versions(d: Damage) -> None:
    """Opsets and IR versions that don't exist, come twice, or are missing."""
    model = d.model
    match d.pick(("opset", "opset", "ir", "none", "twice", "domain")):
        case "opset":
            model.opset_import[0].version = d.pick((1, 5, 6, 8, 12, 13, 18, 21, 27, *INTEGERS))
        case "ir":
            model.ir_version = d.pick((0, 1, 2, 3, 14, -1, 2**31, 2**62))
        case "none":
            del model.opset_import[:]
        case "twice":
            model.opset_import.add(domain=d.pick(("", "ai.onnx")), version=d.pick((1, 9, 17, 22)))
        case _:
            model.opset_import[0].domain = d.pick(("acme", "ai.onnx.ml", "com.microsoft"))


# --- files ------------------------------------------------------------------------------


@cache
def operators() -> tuple[str, ...]:
    """Names of all standard operators."""
    return tuple(sorted({schema.name for schema in onnx.defs.get_all_schemas()}))


@cache
def sources() -> dict[str, Model]:
    """The sound models that damage is done to."""
    import models
    from zoo import ZOO

    found = {name: getattr(models, name)() for name in ("sequential", "residual", "no_inputs")}
    names = (
        *("squeeze_excitation", "reshape_of_shape", "captured", "local_function", "unsqueezed"),
        *("constant_nodes", "resize_computed_sizes", "initializers_as_inputs", "aliased"),
        *("half_precision", "perceptron", "recorded_shapes", "unnamed", "constants_in_other_form"),
    )
    return found | {name: ZOO[name].build() for name in names}


@dataclass(frozen=True, eq=False)
class Case:
    """One damaged file."""

    number: int
    source: str
    corruption: str
    content: bytes
    files: dict[str, bytes]

    def write(self, folder: Path) -> None:
        """The model, and what lies beside it."""
        for name, content in {"model.onnx": self.content, **self.files}.items():
            (folder / name).write_bytes(content)


def make_case(number: int, seed: int) -> Case:
    """The damaged file of this number: every corruption comes in turn."""
    name = sorted(CORRUPTIONS)[number % len(CORRUPTIONS)]
    rng = np.random.default_rng([seed, number])
    source = sorted(sources())[int(rng.integers(len(sources())))]
    model = Model()
    model.CopyFrom(sources()[source])
    damage = Damage(model, rng)
    CORRUPTIONS[name](damage)
    return Case(number, source, name, damage.bytes(), damage.files)


# --- running ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or minus the signal; None if it had to be stopped.

    ``memory`` is the most that it held, in MiB.
    """

    code: int | None
    said: str
    where: str
    seconds: float
    memory: int


def forked(work: Callable[[], int], folder: Path, seconds: float = SECONDS) -> Ended:
    """Run something in a process of its own, with little memory and time."""
    said, where = folder / ".said", folder / ".where"
    child = os.fork()
    if child == 0:
        _confine(folder, said, where)
        code = 99
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    start = perf_counter()
    code, memory = _awaited(child, seconds)
    texts = [path.read_text(errors="replace") for path in (said, where)]
    ended = Ended(code, *texts, perf_counter() - start, memory)
    said.unlink()
    where.unlink()
    return ended


def _confine(folder: Path, said: Path, where: Path) -> None:
    import resource

    os.chdir(folder)
    handle = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    faulthandler.enable(where.open("w"))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _awaited(child: int, seconds: float) -> tuple[int | None, int]:
    """Exit code and MiB; no code for a process that took too long, which then says where it is."""
    handle = os.pidfd_open(child)
    try:
        in_time = bool(select.select([handle], [], [], seconds)[0])
        for ending in () if in_time else (signal.SIGABRT, signal.SIGKILL):
            os.kill(child, ending)
            select.select([handle], [], [], 1)
    finally:
        os.close(handle)
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status) if in_time else None, used.ru_maxrss >> 10


def prune(*more: str) -> int:
    """The command, on model.onnx in the current folder; its exit code."""
    from onnx_shapprune.cli import cli

    try:
        cli([*COMMAND, *more], prog_name="onnx-shapprune")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def try_result() -> int:
    """Load and run out.onnx in plain ONNX Runtime; 0 if that works."""
    from zoo import run

    model = onnx.load("out.onnx")
    stored = {tensor.name for tensor in model.graph.initializer}
    run(model, {i.name: _fed(i) for i in model.graph.input if i.name not in stored})
    return 0


def _fed(info: onnx.ValueInfoProto) -> np.typing.NDArray[Any]:
    """Ones for an input; sizes that are open are 1."""
    kind = info.type.tensor_type
    sizes = [max(dim.dim_value, 1) for dim in kind.shape.dim]
    return np.ones(sizes, helper.tensor_dtype_to_np_dtype(kind.elem_type))


@dataclass(frozen=True)
class Verdict:
    """What became of one file; ``defect`` is empty if it ended as it may."""

    number: int
    source: str
    corruption: str
    code: int | None
    defect: str
    message: str
    where: str = ""
    seconds: float = 0.0
    memory: int = 0

    @property
    def outcome(self) -> str:
        """In a word or two."""
        if self.defect:
            return f"DEFECT: {self.defect}"
        ends = {0: "done", 1: "error", 3: "nothing to prune", 4: "target out of reach"}
        return ends.get(self.code if self.code is not None else -1, "?")


def defect(code: int | None, said: str, left: set[str]) -> str:
    """What is wrong with such an end, as far as what was said and written tells; '' if nothing.

    ``left`` are the files that weren't there before.
    """
    if code is None:
        return "timeout"
    if code < 0:
        return signal.Signals(-code).name
    if code not in (0, 1, 3, 4):
        return f"exit {code}"
    errors = [line for line in said.splitlines() if line.startswith("Error: ")]
    checks = {
        "traceback": "Traceback (most recent call last)" in said,
        "unexpected": any(line.startswith("Error: unexpected ") for line in errors),
        "no message": code != 0 and not errors,
        "several messages": len(errors) > (code != 0),
        "a file where none may be": code in (1, 4) and "out.onnx" in left,
        "no file": code in (0, 3) and "out.onnx" not in left,
        "leftovers": bool(left - {"out.onnx"}),
        "refuted by verify": "please report this model" in said,
        "noise": code == 1 and bool(_noise(said)),
    }
    return next((name for name, wrong in checks.items() if wrong), "")


def _noise(said: str) -> list[str]:
    """Lines that none of ours prints beside an error."""
    ours = re.compile(r"(Error|Hint|Note): |ONNX Runtime .* on (CPU|GPU)|\w+: (done in .*)|$")
    return [line for line in said.splitlines() if not ours.match(line)]


def judge(case: Case, keep: Path | None = None) -> Verdict:
    """Prune the file in a folder of its own and look at what came of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case.write(folder)
        before = {path.name for path in folder.iterdir()}
        ended = forked(prune, folder)
        left = {path.name for path in folder.iterdir()} - before
        found = defect(ended.code, ended.said, left)
        if not found and "out.onnx" in left:
            tried = forked(try_result, folder)
            if tried.code != 0:
                found = f"the result does not run ({tried.code})"
                ended = replace(ended, said=ended.said + tried.said)
        if found and keep is not None:
            _keep(folder, keep / f"{case.number:05}-{case.corruption}", ended)
    return Verdict(
        number=case.number,
        source=case.source,
        corruption=case.corruption,
        code=ended.code,
        defect=found,
        message=_message(ended.said),
        where=ended.where,
        seconds=round(ended.seconds, 2),
        memory=ended.memory,
    )


def _message(said: str) -> str:
    lines = said.strip().splitlines()
    return next((line for line in lines if line.startswith("Error: ")), lines[-1] if lines else "")


def _keep(folder: Path, target: Path, ended: Ended) -> None:
    shutil.copytree(folder, target, dirs_exist_ok=True)
    (target / "said.txt").write_text(f"exit {ended.code}\n{ended.said}\n{ended.where}")


# --- the command ------------------------------------------------------------------------


def summary(seed: int, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Counts and extremes; memory in MiB, code ``None`` for what had to be stopped."""
    return {
        "seed": seed,
        "files": len(verdicts),
        "codes": _counts(str(v.code) for v in verdicts),
        "outcomes": _counts(v.outcome for v in verdicts),
        "defects": sum(bool(v.defect) for v in verdicts),
        "worst_seconds": max((v.seconds for v in verdicts), default=0.0),
        "worst_memory": max((v.memory for v in verdicts), default=0),
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def table(seed: int, verdicts: Sequence[Verdict]) -> str:
    """The summary for people, and a line for each defect."""
    found = summary(seed, verdicts)
    lines = [f"seed {seed}, {found['files']} files, {found['defects']} defects"]
    for what in ("codes", "outcomes"):
        lines.append(f"{what}: " + ", ".join(f"{n} × {k}" for k, n in found[what].items()))
    lines.append(f"at most {found['worst_seconds']} s and {found['worst_memory']} MiB")
    for v in (v for v in verdicts if v.defect):
        lines.append(f"{v.number:5} {v.corruption} of {v.source}: {v.defect}: {v.message[:150]}")
    return "\n".join(lines)


def as_data(seed: int, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """All that was found, for machines."""
    from onnx_shapprune.report import versions

    cases = [asdict(v) | {"outcome": v.outcome} for v in verdicts]
    return {"summary": summary(seed, verdicts), "versions": versions(), "cases": cases}


def show(case: Case) -> int:
    """All that the command says about one file."""
    verdict = judge(case)
    with tempfile.TemporaryDirectory() as name:
        case.write(Path(name))
        ended = forked(partial(prune, "--debug"), Path(name))
    print(f"{case.corruption} of {case.source}: {verdict.outcome}, exit {ended.code}")
    print(ended.said, ended.where, sep="\n")
    return int(bool(verdict.defect))


def _import_all() -> None:
    """What a child would otherwise import for every file."""
    import onnxruntime  # noqa: F401
    import scipy.sparse.csgraph  # noqa: F401

    import onnx_shapprune.cli
    import onnx_shapprune.console
    import onnx_shapprune.documents
    import onnx_shapprune.pipeline  # noqa: F401


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="200 files")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where failing files go")
    parser.add_argument("--case", type=int, metavar="N", help="only this file, with all it says")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    _import_all()
    if given.case is not None:
        return show(make_case(given.case, given.seed))
    verdicts = []
    for number in range(200 if given.quick else given.count):
        verdicts.append(judge(make_case(number, given.seed), given.keep))
        if sys.stderr.isatty():
            print(f"\r{number + 1}", end="", file=sys.stderr, flush=True)
    print(table(given.seed, verdicts))
    if given.json:
        given.json.write_text(json.dumps(as_data(given.seed, verdicts), indent=1) + "\n")
    return int(any(v.defect for v in verdicts))


if __name__ == "__main__":
    sys.exit(main())
