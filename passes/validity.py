"""Graph validity as code: what must hold of a model before anything else looks at it.

onnx's checker and the runtime take for granted much that a damaged file breaks, and crash
over it. The checks here come first. They read no weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

import onnx
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from onnx_shapprune.errors import ModelError

from .shapes import contradiction

RESERVED = "kept of "
"""How the names of masks begin."""

_MAX_DEPTH = 16
_HINT = "the file is damaged or was written by a faulty tool: export it again"
_TYPES = frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
_COMPLEX = frozenset({onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128})
_BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}
_TYPED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


@dataclass(frozen=True, eq=False)
class _Part:
    """A message of the model: how many bodies it is in, and whether in a local function."""

    message: Message
    depth: int = 0
    in_function: bool = False


def check_parts(model: onnx.ModelProto) -> None:
    """Everything that can be said of one part alone: names, attributes, tensors, functions.

    Tensors whose values are still in a file beside the model are not measured.

    Raises:
        ModelError: Something is wrong; says what and where.
    """
    for part in _parts(model):
        for check in _CHECKS.get(type(part.message), ()):
            _raise_first(check(part))
        _raise_first(_texts(part))
    _raise_first(_recursions(model))


def check_values(tensors: Iterable[onnx.TensorProto]) -> None:
    """Whether the values of stored tensors fill their shapes.

    Raises:
        ModelError: One has more or fewer.
    """
    for tensor in tensors:
        _raise_first(_values(_Part(tensor)))


def check_shapes(model: onnx.ModelProto) -> None:
    """Whether shapes and types of all tensors fit the operators that read and make them.

    Raises:
        ModelError: They contradict each other.
    """
    found = contradiction(model)
    _raise_first([f"its operators don't fit together: {found}"] if found else [])


def _raise_first(complaints: Iterable[str]) -> None:
    for complaint in complaints:
        raise ModelError(f"the model is invalid: {complaint}", _HINT)


# --- going through -------------------------------------------------------------------------


def _parts(model: onnx.ModelProto) -> Iterator[_Part]:
    """All messages of a model; no deeper than bodies may be nested."""
    pending = [_Part(model)]
    while pending:
        part = pending.pop()
        yield part
        depth = part.depth + isinstance(part.message, onnx.GraphProto)
        inside = part.in_function or isinstance(part.message, onnx.FunctionProto)
        pending += [_Part(m, depth, inside) for m in _inner(part.message)]


def _inner(message: Message) -> Iterator[Message]:
    singles, lists = _fields(message.DESCRIPTOR).inner
    for name in singles:
        if message.HasField(name):
            yield getattr(message, name)
    for name in lists:
        yield from getattr(message, name)


@dataclass(frozen=True)
class _Fields:
    """Names of a message's fields, single ones and lists: messages in it, and texts."""

    inner: tuple[tuple[str, ...], tuple[str, ...]]
    texts: tuple[tuple[str, ...], tuple[str, ...]]


@cache
def _fields(kind: Descriptor) -> _Fields:
    fields = kind.fields
    inner = [f for f in fields if f.message_type is not None]
    texts = [f for f in fields if f.type == FieldDescriptor.TYPE_STRING]
    return _Fields(_by_number(inner), _by_number(texts))


def _by_number(fields: Sequence[FieldDescriptor]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (
        tuple(f.name for f in fields if f.has_presence),
        tuple(f.name for f in fields if not f.has_presence),
    )


def _where(name: str, what: str) -> str:
    return f"{what} '{name}'" if name else f"{what} without a name"


def _node_name(node: onnx.NodeProto) -> str:
    named = node.name or next(filter(None, node.output), "")
    return _where(named, node.op_type or "a node")


# --- the checks ----------------------------------------------------------------------------


def _texts(part: _Part) -> Iterator[str]:
    """Protobuf hands a text that is no UTF-8 out as bytes, which no code expects."""
    message = part.message
    singles, lists = _fields(message.DESCRIPTOR).texts
    values = [(name, getattr(message, name)) for name in singles]
    values += [(name, value) for name in lists for value in getattr(message, name)]
    for name, value in values:
        if isinstance(value, bytes):
            yield f"a {name} is no text: {value[:20]!r}"


def _depth(part: _Part) -> Iterator[str]:
    if part.depth > _MAX_DEPTH:
        yield f"its nodes have bodies in bodies, {part.depth} deep or more"


def _attributes(part: _Part) -> Iterator[str]:
    node = part.message
    assert isinstance(node, onnx.NodeProto)
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        yield f"{_node_name(node)} has the attribute '{twice}' twice"
    for attribute in node.attribute:
        if attribute.ref_attr_name and not part.in_function:
            yield (
                f"the attribute '{attribute.name}' of {_node_name(node)} refers to that of a "
                "function, but is in none"
            )


def _reserved(part: _Part) -> Iterator[str]:
    message: Any = part.message
    names = message.output if isinstance(message, onnx.NodeProto) else [message.name]
    for name in names:
        if str(name).startswith(RESERVED):
            yield f"the tensor '{name}' has a name that is reserved for masks"


def _element_type(part: _Part) -> Iterator[str]:
    kind: Any = part.message
    if kind.elem_type and kind.elem_type not in _TYPES:
        yield f"there is no element type {kind.elem_type}"


def _tensor(part: _Part) -> Iterator[str]:
    tensor = part.message
    assert isinstance(tensor, onnx.TensorProto)
    name = _where(tensor.name, "the tensor")
    if tensor.data_type not in _TYPES:
        yield f"{name} has the element type {tensor.data_type}, which there is not"
    elif min(tensor.dims, default=0) < 0:
        yield f"{name} has a negative size: {list(tensor.dims)}"
    elif tensor.HasField("segment"):
        yield f"{name} is stored in segments, which nothing reads"
    elif tensor.data_location != onnx.TensorProto.EXTERNAL:
        yield from _values(part)


def _values(part: _Part) -> Iterator[str]:
    tensor = part.message
    assert isinstance(tensor, onnx.TensorProto)
    elements = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        expected, found, unit = _raw_size(tensor.data_type, elements), len(tensor.raw_data), "bytes"
    else:
        expected, unit = _entries(tensor.data_type, elements), "values"
        found = sum(len(getattr(tensor, field)) for field in _TYPED)
    if found != expected:
        name = _where(tensor.name, "the tensor")
        yield f"{name} has {found} {unit}, its shape {list(tensor.dims)} needs {expected}"


def _raw_size(kind: int, elements: int) -> int:
    return (elements * _bits(kind) + 7) // 8


def _entries(kind: int, elements: int) -> int:
    """Entries of a typed list: complex numbers take two, small integers share one."""
    if kind in _COMPLEX:
        return 2 * elements
    return -(-elements * _bits(kind) // 8) if _bits(kind) < 8 else elements


@cache
def _bits(kind: int) -> int:
    small = _BITS.get(onnx.TensorProto.DataType.Name(kind))
    return small or 8 * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize


def _recursions(model: onnx.ModelProto) -> Iterator[str]:
    """A local function must not call itself, directly or through others."""
    keys = {(f.domain, f.name) for f in model.functions}
    calls = {(f.domain, f.name): _called(f) & keys for f in model.functions}
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        _, ((_, name), *_) = error.args
        yield f"the local function '{name}' calls itself"


def _called(function: onnx.FunctionProto) -> set[tuple[str, str]]:
    pending: list[Message] = [function]
    found = set()
    while pending:
        message = pending.pop()
        pending += _inner(message)
        if isinstance(message, onnx.NodeProto):
            found.add((message.domain, message.op_type))
    return found


_Check = Callable[[_Part], Iterator[str]]

_CHECKS: dict[type[Message], tuple[_Check, ...]] = {
    onnx.GraphProto: (_depth,),
    onnx.NodeProto: (_attributes, _reserved),
    onnx.TensorProto: (_tensor, _reserved),
    onnx.ValueInfoProto: (_reserved,),
    onnx.TypeProto.Tensor: (_element_type,),
    onnx.TypeProto.SparseTensor: (_element_type,),
}
