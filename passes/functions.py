"""Local functions: written out for the analysis, folded back after the surgery.

A function is a name for nodes. Written out, every call has nodes of its own, and what holds
for other nodes holds for them. Folded back, calls that came out alike share a function
again; where they differ, each kind has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx

from .bodies import bodies, nested

_TAG = "onnx_shapprune.call"
"""Metadata of nodes that are written out: level, call and place in the function."""

Key = tuple[str, str, str]
Rename = Callable[[str], str]


@dataclass(frozen=True, eq=False)
class Call:
    """A call as it was, and the prefix of the names that it has made."""

    node: onnx.NodeProto
    function: onnx.FunctionProto
    prefix: str


@dataclass(frozen=True, eq=False)
class Flat:
    """A model whose functions are written out, one level of calls after the other.

    ``twins`` says of constants that several calls have a copy of which the first one is.
    """

    model: onnx.ModelProto
    levels: tuple[tuple[Call, ...], ...] = ()
    twins: Mapping[str, str] = field(default_factory=dict)


def flattened(model: onnx.ModelProto) -> Flat:
    """Write the functions out that can be; the model itself is not changed."""
    functions = {_key(f): f for f in model.functions if _can_be_written_out(model, f)}
    if not functions:
        return Flat(model)
    flat = onnx.ModelProto()
    flat.CopyFrom(model)
    levels: list[tuple[Call, ...]] = []
    first: dict[tuple[Key, str], str] = {}
    twins: dict[str, str] = {}
    while calls := _write_out_level(flat, functions, len(levels)):
        levels.append(tuple(calls))
        for call in calls:
            for name in _constants(call.function):
                made = f"{call.prefix}{name}"
                twins[made] = first.setdefault((_key(call.function), name), made)
    _drop_functions(flat, functions)
    return Flat(flat, tuple(levels), twins)


def _can_be_written_out(model: onnx.ModelProto, function: onnx.FunctionProto) -> bool:
    """Whether its operators mean the same outside of it."""
    outside = {_domain(opset.domain): opset.version for opset in model.opset_import}
    inside = {_domain(opset.domain): opset.version for opset in function.opset_import}
    return all(outside.get(name, version) == version for name, version in inside.items())


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _key(function: onnx.FunctionProto) -> Key:
    return function.domain, function.name, function.overload


def _key_called(node: onnx.NodeProto) -> Key:
    return node.domain, node.op_type, node.overload


def _constants(function: onnx.FunctionProto) -> Iterator[str]:
    return (node.output[0] for node in function.node if node.op_type == "Constant")


def _drop_functions(model: onnx.ModelProto, keys: Iterable[Key]) -> None:
    gone = set(keys)
    kept = [function for function in model.functions if _key(function) not in gone]
    del model.functions[:]
    model.functions.extend(kept)


# --- out --------------------------------------------------------------------------------


def _write_out_level(
    model: onnx.ModelProto, functions: Mapping[Key, onnx.FunctionProto], level: int
) -> list[Call]:
    """Replace every call by the nodes of its function; calls among those are left."""
    calls: list[Call] = []
    for graph in reversed(list(nested(model.graph))):
        nodes = list(graph.node)
        if not any(_key_called(node) in functions for node in nodes):
            continue
        fresh: list[onnx.NodeProto] = []
        for node in nodes:
            function = functions.get(_key_called(node))
            if function is None:
                fresh.append(node)
                continue
            outputs = [name for name in node.output if name]
            call = Call(_copy(node), function, f"{outputs[0] if outputs else node.name}/")
            fresh += _written_out(call, f"{level}:{len(calls)}")
            calls.append(call)
        _replace_nodes(graph, fresh)
    return calls


def _replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    copies = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _written_out(call: Call, tag: str) -> Iterator[onnx.NodeProto]:
    rename, given = _outside_names(call), {a.name: a for a in call.node.attribute}
    defaults = {a.name: a for a in call.function.attribute_proto}
    for place, node in enumerate(call.function.node):
        copy = _copy(node)
        _rename(copy, rename)
        _set_attributes(copy, {**defaults, **given})
        if node.name:
            copy.name = f"{call.prefix}{node.name}"
        entry = copy.metadata_props.add()
        entry.key, entry.value = _TAG, f"{tag}:{place}"
        yield copy


def _outside_names(call: Call) -> Rename:
    """What a name in a function is called outside, at this call."""
    function, node = call.function, call.node
    names = dict(zip(function.input, [*node.input, *[""] * len(function.input)], strict=False))
    names |= {n: given for n, given in zip(function.output, node.output, strict=False) if given}
    return lambda name: names.get(name, f"{call.prefix}{name}")


def _rename(node: onnx.NodeProto, rename: Rename) -> None:
    """Give all names of a node, those in its bodies too, another name."""
    node.input[:] = [name and rename(name) for name in node.input]
    node.output[:] = [name and rename(name) for name in node.output]
    for _, body in bodies(node):
        for info in (*body.input, *body.output, *body.initializer, *body.value_info):
            info.name = rename(info.name)
        for inner in body.node:
            _rename(inner, rename)


def _set_attributes(node: onnx.NodeProto, values: Mapping[str, onnx.AttributeProto]) -> None:
    """Replace references to a function's attributes; those that are not given go."""
    for found in [a for a in node.attribute if a.ref_attr_name]:
        value = values.get(found.ref_attr_name)
        name = found.name
        if value is None:
            node.attribute.remove(found)
        else:
            found.CopyFrom(value)
            found.name = name
    for _, body in bodies(node):
        for inner in body.node:
            _set_attributes(inner, values)


# --- back -------------------------------------------------------------------------------


def folded_back(pruned: onnx.ModelProto, flat: Flat, source: onnx.ModelProto) -> onnx.ModelProto:
    """Make calls of the nodes that were written out; changes ``pruned`` and returns it.

    Args:
        pruned: What surgery made of ``flat.model``.
        flat: The source with its functions written out.
        source: The source.
    """
    if not flat.levels:
        return pruned
    known = {tensor.name for tensor in source.graph.initializer}
    added = {t.name: t for t in pruned.graph.initializer if t.name not in known}
    library = _Library(source, pruned)
    for level in reversed(range(len(flat.levels))):
        for graph in nested(pruned.graph):
            _replace_nodes(graph, _with_calls(graph, flat.levels[level], level, added, library))
    library.store()
    _drop_unread(pruned, added)
    return pruned


def _with_calls(
    graph: onnx.GraphProto,
    calls: tuple[Call, ...],
    level: int,
    added: Mapping[str, onnx.TensorProto],
    library: _Library,
) -> list[onnx.NodeProto]:
    """The graph's nodes, those of a call replaced by it."""
    result: list[onnx.NodeProto] = []
    parts: dict[int, list[onnx.NodeProto]] = {}
    for node in graph.node:
        number = _call_number(node, level)
        if number is None:
            result.append(node)
            continue
        if number not in parts:
            result.append(calls[number].node)
        parts.setdefault(number, []).append(node)
    for number, nodes in parts.items():
        call = calls[number]
        place = next(i for i, node in enumerate(result) if node is call.node)
        body = _body(call, nodes, added)
        result[place] = _copy(call.node)
        result[place].op_type = library.name_of(call, body)
    return result


def belonging(node: onnx.NodeProto) -> list[onnx.StringStringEntryProto]:
    """Metadata for a node that is put behind another one, in the same call."""
    tags = [entry.value.rpartition(":")[0] for entry in node.metadata_props if entry.key == _TAG]
    return [onnx.StringStringEntryProto(key=_TAG, value=f"{tag}:") for tag in tags]


def _call_number(node: onnx.NodeProto, level: int) -> int | None:
    tag = next((entry.value for entry in node.metadata_props if entry.key == _TAG), "")
    of_level, _, rest = tag.partition(":")
    return int(rest.partition(":")[0]) if of_level == str(level) else None


def _body(
    call: Call, nodes: Iterable[onnx.NodeProto], added: Mapping[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """The nodes of a call as nodes of a function, which holds new constants itself."""
    body: list[onnx.NodeProto] = []
    wanted: dict[str, onnx.TensorProto] = {}
    outside = _outside_names(call)
    for node in nodes:
        place = _place(node)
        original = call.function.node[place] if place is not None else onnx.NodeProto()
        back = _inside_names(call, outside, original)
        wanted |= {name: added[name] for name in node.input if name in added}
        body.append(_taken_back(node, original, back, call))
    stored = [
        onnx.helper.make_node("Constant", [], [name], name=name, value=tensor)
        for name, tensor in wanted.items()
    ]
    return [*stored, *body]


def _place(node: onnx.NodeProto) -> int | None:
    """Which node of its function this was; None for one that surgery put behind it."""
    tag = next(entry.value for entry in node.metadata_props if entry.key == _TAG)
    place = tag.split(":")[2]
    return int(place) if place else None


def _inside_names(call: Call, outside: Rename, original: onnx.NodeProto) -> Rename:
    """What a name outside was called in the function, by the node that it was in."""
    formal = [*call.function.output, *call.function.input]
    names = {outside(name): name for name in reversed(formal) if outside(name)}
    names |= {outside(name): name for name in (*original.input, *original.output) if name}
    return lambda name: names.get(name, name.removeprefix(call.prefix))


def _taken_back(
    node: onnx.NodeProto, original: onnx.NodeProto, back: Rename, call: Call
) -> onnx.NodeProto:
    """The node as the function has it, with what surgery has changed."""
    result = _copy(node)
    _rename(result, back)
    result.name = original.name if original.op_type else node.name.removeprefix(call.prefix)
    if not result.name:
        result.ClearField("name")
    untagged = [entry for entry in result.metadata_props if entry.key != _TAG]
    del result.metadata_props[:]
    result.metadata_props.extend(untagged)
    if original.op_type:
        _refer_again(result, original, {a.name: a for a in call.node.attribute})
    return result


def _refer_again(
    node: onnx.NodeProto,
    original: onnx.NodeProto,
    given: Mapping[str, onnx.AttributeProto],
) -> None:
    """References to the function's attributes come back where their value is as it was."""
    kept = {found.name: found for found in node.attribute}
    restored = []
    for old in original.attribute:
        value = onnx.AttributeProto()
        value.CopyFrom(given.get(old.ref_attr_name, old) if old.ref_attr_name else old)
        value.name = old.name
        now = kept.pop(old.name, None)
        same = now is None or (old.ref_attr_name and now == value)
        restored.append(old if same or now is None else now)
    copies = [_copy_attribute(found) for found in (*restored, *kept.values())]
    del node.attribute[:]
    node.attribute.extend(copies)


def _copy_attribute(found: onnx.AttributeProto) -> onnx.AttributeProto:
    copy = onnx.AttributeProto()
    copy.CopyFrom(found)
    return copy


def _drop_unread(model: onnx.ModelProto, added: Iterable[str]) -> None:
    """Constants that functions hold now need not be stored outside."""
    read = {name for graph in nested(model.graph) for node in graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name in set(added) - read]:
        model.graph.initializer.remove(tensor)


class _Library:
    """The functions of the model that comes out: as many of each as its calls differ."""

    def __init__(self, source: onnx.ModelProto, pruned: onnx.ModelProto) -> None:
        self._source = source
        self._pruned = pruned
        self._names = {(function.domain, function.name) for function in source.functions}
        self._bodies: dict[Key, dict[bytes, tuple[str, list[onnx.NodeProto]]]] = {}

    def name_of(self, call: Call, body: list[onnx.NodeProto]) -> str:
        """Name of the function with this body."""
        kinds = self._bodies.setdefault(_key(call.function), {})
        content = b"".join(node.SerializeToString(deterministic=True) for node in body)
        if content not in kinds:
            kinds[content] = (self._unique(call.function) if kinds else call.function.name, body)
        return kinds[content][0]

    def _unique(self, function: onnx.FunctionProto) -> str:
        number = 1
        while (function.domain, f"{function.name}_{number}") in self._names:
            number += 1
        self._names.add((function.domain, f"{function.name}_{number}"))
        return f"{function.name}_{number}"

    def store(self) -> None:
        """Write all functions, in the order of the source."""
        del self._pruned.functions[:]
        for function in self._source.functions:
            kinds = self._bodies.get(_key(function))
            if kinds is None:
                self._pruned.functions.append(function)
            for name, body in kinds.values() if kinds else ():
                self._pruned.functions.append(_with_body(function, name, body))


def _with_body(
    function: onnx.FunctionProto, name: str, body: list[onnx.NodeProto]
) -> onnx.FunctionProto:
    result = onnx.FunctionProto()
    result.CopyFrom(function)
    result.name = name
    if list(function.node) != body:
        del result.node[:]
        result.node.extend(body)
        del result.value_info[:]  # sizes that may be stale
    return result
