"""What differs between two protobuf messages, in any field that their descriptors name.

Nothing here knows what ONNX means: a field that a later version of the format adds is
compared like all the others. Entries of lists are matched by name where they have one,
so that one more initializer is one difference, and not one for each that follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableSequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

Path = tuple[str, ...]

UNKNOWN = "(unknown fields)"
ORDER = "(order)"
NAMED: dict[str, Callable[[Any], str]] = {
    "NodeProto": lambda node: next(filter(None, node.output), node.name),
    "TensorProto": lambda tensor: tensor.name,
    "SparseTensorProto": lambda tensor: tensor.values.name,
    "ValueInfoProto": lambda info: info.name,
    "AttributeProto": lambda attribute: attribute.name,
    "TensorAnnotation": lambda annotation: annotation.tensor_name,
    "FunctionProto": lambda function: f"{function.domain}.{function.name}.{function.overload}",
}


@dataclass(frozen=True)
class Difference:
    """One place: names of fields and entries, and what is there in each (None: nothing)."""

    path: Path
    source: Any
    pruned: Any

    def __str__(self) -> str:
        """One line for a failing test."""
        return f"{'/'.join(self.path)}: {_short(self.source)} -> {_short(self.pruned)}"


def differences(source: Message, pruned: Message, path: Path = ()) -> Iterator[Difference]:
    """All places where two messages of the same type differ, in the order of their fields."""
    strange = [_unknown(message) for message in (source, pruned)]
    if strange[0] != strange[1]:
        yield Difference((*path, UNKNOWN), *strange)
    for field in source.DESCRIPTOR.fields:
        place = (*path, field.name)
        one, other = getattr(source, field.name), getattr(pruned, field.name)
        if isinstance(one, MutableSequence):
            yield from _of_lists(one, other, place, is_nested=field.message_type is not None)
        else:
            yield from _of_values(_present(source, field), _present(pruned, field), place)


def names(entries: MutableSequence[Any]) -> list[str]:
    """A name for each entry of a list: its own if all have one, and each another."""
    naming = NAMED.get(entries[0].DESCRIPTOR.name) if entries else None
    found = [naming(entry) for entry in entries] if naming else []
    if "" in found or len(set(found)) < len(entries):
        return [str(number) for number in range(len(entries))]
    return found


def _of_lists(
    source: MutableSequence[Any], pruned: MutableSequence[Any], path: Path, *, is_nested: bool
) -> Iterator[Difference]:
    if not is_nested:
        yield from _of_values(list(source), list(pruned), path)
        return
    one = dict(zip(names(source), source, strict=True))
    other = dict(zip(names(pruned), pruned, strict=True))
    order = [
        [name for name in mine if name in theirs] for mine, theirs in ((one, other), (other, one))
    ]
    if order[0] != order[1]:
        yield Difference((*path, ORDER), *order)
    for name in {**one, **other}:
        yield from _of_values(one.get(name), other.get(name), (*path, name))


def _of_values(source: Any, pruned: Any, path: Path) -> Iterator[Difference]:
    if isinstance(source, Message) and isinstance(pruned, Message):
        yield from differences(source, pruned, path)
    elif type(source) is not type(pruned) or repr(source) != repr(pruned):
        yield Difference(path, source, pruned)  # repr tells -0.0 from 0.0, and knows a NaN again


def _present(message: Message, field: Any) -> Any:
    return getattr(message, field.name) if message.HasField(field.name) else None


def _unknown(message: Message) -> list[tuple[int, int, Any]]:
    fields = UnknownFieldSet(message)
    return [(found.field_number, found.wire_type, found.data) for found in fields]


def _short(value: Any) -> str:
    text = " ".join(str(value).split()) if isinstance(value, Message) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
