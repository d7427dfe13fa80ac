"""Graph validity as code: what must hold of a model before anything else looks at it.

onnx's checker and the runtime take for granted much that a damaged file breaks, and crash
over it. The checks here come first. They read no weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from onnx_shapprune.errors import ModelError

from .shapes import contradiction

RESERVED = "kept of "
"""How the names of masks begin."""

_MAX_DEPTH = 16
_MAX_DENSE = 2**31
_HINT = "the file is damaged or was written by a faulty tool: export it again"
_TYPES = frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
_BESIDE_VALUES = [
    onnx.TensorProto.DESCRIPTOR.fields_by_name[name]
    for name in ("name", "doc_string", "external_data")
]
_COMPLEX = frozenset({onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128})
_BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}
_TYPED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


class _Part(NamedTuple):
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
            _require_none(check(part))
    _require_none(_recursion(model))


def check_shapes(model: onnx.ModelProto) -> None:
    """Whether shapes and types of all tensors fit the operators that read and make them.

    Raises:
        ModelError: They contradict each other.
    """
    found = contradiction(model)
    _require_none(f"its operators don't fit together: {found}" if found else "")


def _require_none(complaint: str) -> None:
    if complaint:
        raise ModelError(f"the model is invalid: {complaint}", _HINT)


# --- going through -------------------------------------------------------------------------


def _parts(model: onnx.ModelProto) -> Iterator[_Part]:
    """All messages of a model."""
    pending = [_Part(model)]
    while pending:
        message, depth, in_function = part = pending.pop()
        depth += isinstance(message, onnx.GraphProto)
        in_function = in_function or isinstance(message, onnx.FunctionProto)
        pending += [_Part(inner, depth, in_function) for inner in _inner(message)]
        yield part


def _inner(message: Message) -> Iterator[Message]:
    """Messages in a message.

    Raises:
        ModelError: A text beside them is no UTF-8; protobuf hands it out as bytes then, which
            no code expects.
    """
    for descriptor, value in _fields(message):
        kind = _kind(descriptor)
        if kind.has_messages:
            yield from value if kind.is_list else [value]
        elif kind.has_texts:
            for text in value if kind.is_list else [value]:
                _require_none(_no_text(kind.name, text))


class _Kind(NamedTuple):
    """What is in a field."""

    name: str
    has_messages: bool
    has_texts: bool
    is_list: bool


@cache
def _kind(field: FieldDescriptor) -> _Kind:
    has_messages = field.message_type is not None
    has_texts = field.type == FieldDescriptor.TYPE_STRING
    return _Kind(field.name, has_messages, has_texts, not field.has_presence)


def _fields(message: Message) -> Iterable[tuple[FieldDescriptor, Any]]:
    """Fields that are set; of a tensor not its values, which would be copied."""
    if isinstance(message, onnx.TensorProto):
        return [(d, getattr(message, d.name)) for d in _BESIDE_VALUES]
    found: list[tuple[FieldDescriptor, Any]] = message.ListFields()
    return found


def _node_name(node: onnx.NodeProto) -> str:
    name = node.name or next(filter(None, node.output), "")
    return f"{node.op_type} '{name}'"


def _tensor_name(tensor: onnx.TensorProto) -> str:
    return f"the tensor '{tensor.name}'"


# --- the checks: what is wrong with a part, empty if nothing --------------------------------


def _no_text(field: str, text: str | bytes) -> str:
    return f"a {field} is no text: {text[:20]!r}" if isinstance(text, bytes) else ""


def _depth(part: _Part) -> str:
    if part.depth > _MAX_DEPTH:
        return f"its nodes have bodies in bodies, {part.depth} deep or more"
    return ""


def _attributes(part: _Part) -> str:
    node: Any = part.message
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        return f"{_node_name(node)} has the attribute '{twice}' twice"
    return ""


def _reference(part: _Part) -> str:
    attribute: Any = part.message
    if attribute.ref_attr_name and not part.in_function:
        return f"an attribute '{attribute.name}' refers to that of a function, but is in none"
    return ""


def _reserved_outputs(part: _Part) -> str:
    node: Any = part.message
    return next(filter(None, map(_reserved, node.output)), "")


def _reserved_name(part: _Part) -> str:
    holder: Any = part.message
    return _reserved(holder.name)


def _reserved(name: str) -> str:
    return f"the name '{name}' is reserved for masks" if name.startswith(RESERVED) else ""


def _element_type(part: _Part) -> str:
    kind: Any = part.message
    wrong = kind.elem_type and kind.elem_type not in _TYPES
    return f"there is no element type {kind.elem_type}" if wrong else ""


def _tensor(part: _Part) -> str:
    tensor: Any = part.message
    if tensor.data_type not in _TYPES:
        return f"{_tensor_name(tensor)} has the unknown element type {tensor.data_type}"
    if min(tensor.dims, default=0) < 0:
        return f"{_tensor_name(tensor)} has a negative size: {list(tensor.dims)}"
    if tensor.HasField("segment"):
        return f"{_tensor_name(tensor)} is stored in segments, which nothing reads"
    return "" if tensor.data_location == onnx.TensorProto.EXTERNAL else _values(tensor)


def _sparse(part: _Part) -> str:
    tensor: Any = part.message
    if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > _MAX_DENSE:
        return f"there is no sparse tensor of the shape {list(tensor.dims)}"
    return ""


def _values(tensor: onnx.TensorProto) -> str:
    elements = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        expected, found, unit = _raw_size(tensor.data_type, elements), len(tensor.raw_data), "bytes"
    else:
        expected, unit = _entries(tensor.data_type, elements), "values"
        found = sum(len(getattr(tensor, field)) for field in _TYPED)
    if found == expected:
        return ""
    shape = list(tensor.dims)
    return f"{_tensor_name(tensor)} has {found} {unit}, its shape {shape} needs {expected}"


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


def _recursion(model: onnx.ModelProto) -> str:
    """A local function must not call itself, directly or through others."""
    keys = {(f.domain, f.name) for f in model.functions}
    calls = {(f.domain, f.name): _called(f) & keys for f in model.functions}
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        _, ((_, name), *_) = error.args
        return f"the local function '{name}' calls itself"
    return ""


def _called(function: onnx.FunctionProto) -> set[tuple[str, str]]:
    pending: list[Message] = [function]
    found = set()
    while pending:
        message = pending.pop()
        pending += _inner(message)
        if isinstance(message, onnx.NodeProto):
            found.add((message.domain, message.op_type))
    return found


_CHECKS: dict[type[Message], tuple[Callable[[_Part], str], ...]] = {
    onnx.GraphProto: (_depth,),
    onnx.NodeProto: (_attributes, _reserved_outputs),
    onnx.AttributeProto: (_reference,),
    onnx.TensorProto: (_tensor, _reserved_name),
    onnx.SparseTensorProto: (_sparse,),
    onnx.ValueInfoProto: (_reserved_name,),
    onnx.TypeProto.Tensor: (_element_type,),
    onnx.TypeProto.SparseTensor: (_element_type,),
}
