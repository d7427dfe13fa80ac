"""Models as bytes: taken apart and put together around their weights, without a copy of them.

Protobuf's own parser and writer hold every weight in memory, twice for a while. Here only the
frame around the large tensors passes through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

Buffer = bytes | memoryview

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_TENSOR: dict[int, object] = {}
_NODE = {5: {5: _TENSOR}}
_MODEL: dict[int, object] = {7: {1: _NODE, 5: _TENSOR}}
"""Numbers of the fields that lead from a model to the tensors of its top-level graph."""

_OP_TYPE = 4
RAW_DATA = 9
ELSEWHERE = (13, 14)
"""Fields of a tensor: its values as bytes, and what it says if they are in another file."""


class Malformed(Exception):
    """The bytes are no protobuf message."""


@dataclass(frozen=True)
class Field:
    """One field of a message: where it starts, its content starts, and it ends."""

    number: int
    kind: int
    start: int
    content: int
    end: int


@dataclass(frozen=True, eq=False)
class Content:
    """Bytes that are not at hand but will be written: their number, and how."""

    length: int
    write: Callable[[BinaryIO], object]


Piece = Buffer | Content
TensorRule = Callable[[Buffer, int, int], Sequence[Piece] | None]
"""From a buffer and the bounds of a tensor in it to what takes the tensor's place, or None."""


def fields(data: Buffer, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``data[at:end]``.

    Raises:
        Malformed: It is no message.
    """
    while at < end:
        key, content = _varint(data, at, end)
        number, kind = key >> 3, key & 7
        stop = content
        if kind == _VARINT:
            _, stop = _varint(data, content, end)
        elif kind == _LENGTH:
            length, content = _varint(data, content, end)
            stop = content + length
        elif kind in (_FIXED32, _FIXED64):
            stop = content + (4 if kind == _FIXED32 else 8)
        else:
            raise Malformed
        if stop > end:
            raise Malformed
        yield Field(number, kind, at, content, stop)
        at = stop


def rewritten(data: Buffer, rule: TensorRule) -> list[Piece]:
    """A serialised model with the tensors of its top-level graph replaced.

    Args:
        data: The model.
        rule: What takes the place of a tensor: of an initializer or a Constant node.

    Raises:
        Malformed: It is no protobuf message.
    """
    return _message(data, 0, len(data), _MODEL, rule)


def length_field(number: int, length: int) -> bytes:
    """What stands in front of a field of so many bytes."""
    return _encoded(number << 3 | _LENGTH) + _encoded(length)


def size(pieces: Sequence[Piece]) -> int:
    """Bytes of all pieces."""
    return sum(p.length if isinstance(p, Content) else len(p) for p in pieces)


def write(pieces: Sequence[Piece], file: BinaryIO) -> None:
    """Write all pieces, those that are not at hand one at a time."""
    for piece in pieces:
        if isinstance(piece, Content):
            piece.write(file)
        else:
            file.write(piece)


def _message(
    data: Buffer, at: int, end: int, inner: dict[int, object], rule: TensorRule
) -> list[Piece]:
    found: list[Piece] = []
    for field in fields(data, at, end):
        child = inner.get(field.number) if field.kind == _LENGTH else None
        new = _child(data, field, child, rule)
        if new is None:
            found.append(data[field.start : field.end])
        else:
            found += [length_field(field.number, size(new)), *new]
    return found


def _child(data: Buffer, field: Field, inner: object, rule: TensorRule) -> Sequence[Piece] | None:
    """What takes the place of a field's content; None if it stays."""
    if inner is _TENSOR:
        return rule(data, field.content, field.end)
    if not isinstance(inner, dict) or (inner is _NODE and not _is_constant(data, field)):
        return None
    return _message(data, field.content, field.end, inner, rule)


def _is_constant(data: Buffer, node: Field) -> bool:
    return any(
        field.number == _OP_TYPE and bytes(data[field.content : field.end]) == b"Constant"
        for field in fields(data, node.content, node.end)
    )


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise Malformed


def _encoded(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
