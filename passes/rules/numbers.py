"""Shape arithmetic: which entry of a small integer tensor is the width of what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps

import numpy as np
import onnx

from onnx_shapprune.types import IntArray

from .effects import Entry, Number, Refused, Width
from .registry import Rule, number_rule, rule
from .site import Site, known

_ARITHMETIC: dict[str, Callable[..., float]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Min": min,
    "Max": max,
    "Equal": lambda a, b: a == b,
    "Mod": lambda a, b: a % b,
    "Neg": lambda a: -a,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Sqrt": lambda a: a**0.5 if a >= 0 else np.nan,
}
_DIVISION = "Div"
_MAX_SIZE = 2**53
_MAX_LIST = 4096


def follow_shape_entry(site: Site, entry: Entry, ids: IntArray) -> None:
    """The entry names the width of ``ids``: it follows by itself, is rewritten, or -1."""
    if isinstance(entry, Width):
        _follow_width(site, entry, ids)
    elif isinstance(entry, Number) and entry.value == len(ids):
        site.follow_entry(entry, ids)
    elif not (isinstance(entry, Number) and entry.value == -1):
        raise Refused("the number of channels in its shape is computed in a way not followed")


def _follow_width(site: Site, entry: Width, ids: IntArray) -> None:
    """The same channels in another order follow by themselves, others need a new number."""
    if np.array_equal(np.sort(entry.ids), np.sort(ids)):
        return
    if entry.place is None or len(entry.ids) != len(ids):
        site.tie(entry.ids, ids)
    else:
        site.follow_entry(known(entry), ids)


def require_free(site: Site, entries: Iterable[Entry]) -> None:
    """None of the entries may change with the channels; computed ones are held."""
    for entry in entries:
        if isinstance(entry, Width):
            raise Refused("another axis takes its size from the number of channels")
        if isinstance(entry, Number):
            site.pin(entry)


def list_rule(*operators: str) -> Callable[[Rule], Rule]:
    """Register a rule for lists of sizes; beside other tensors the numbers stay what they are."""

    def register(function: Rule) -> Rule:
        @wraps(function)
        def on_lists(site: Site) -> None:
            if all(len(site.shape(index)) <= 1 for index in site.inputs if site.has(index)):
                function(site)
            else:
                for index in site.inputs:
                    site.pin_all(index)

        return number_rule(*operators)(on_lists)

    return register


@rule("Shape", produces=True)
def shape_of(site: Site) -> None:
    """One entry of the result is the width of the tracked axis."""
    track = site.track(0)
    declared = site.declared_shape(0)
    entries: list[Entry] = [None] * len(site.shape(0))
    for axis, (size, found) in enumerate(zip(declared, site.shape(0), strict=False)):
        entries[axis] = Number(size) if isinstance(size, int) and size == found else None
    if track is not None:
        entries[track.axis] = Width(track.ids)
    site.emit_numbers(entries[site.attribute("start", 0) : site.attribute("end")])


@list_rule("Gather")
def gather(site: Site) -> None:
    """Picks entries."""
    entries = _entries(site, 0)
    if site.value(1) is None:
        raise Refused("picks a size by a computed index")
    chosen = site.integers(1, "indices") or []
    if not all(-len(entries) <= i < len(entries) for i in chosen):
        raise Refused("picks a size that there is not")
    site.emit_numbers([entries[i] for i in chosen])


@list_rule("Slice")
def slice_entries(site: Site) -> None:
    """Cuts out a run of entries."""
    bounds = [site.integers(i, name) for i, name in ((1, "starts"), (2, "ends"), (4, "steps"))]
    starts, ends, steps = (values[0] if values else None for values in bounds)
    if steps == 0:
        raise Refused("cuts in steps of 0")
    site.emit_numbers(_entries(site, 0)[starts:ends:steps])


@list_rule("Concat")
def concat_entries(site: Site) -> None:
    """Strings entries together."""
    site.emit_numbers([entry for index in site.inputs for entry in _entries(site, index)])


@list_rule("Unsqueeze", "Squeeze", "Reshape", "Identity")
def same_entries(site: Site) -> None:
    """Changes the form, not the entries."""
    site.emit_numbers(_entries(site, 0))


@list_rule("Cast")
def cast(site: Site) -> None:
    """Between integers and floats; towards zero."""
    exact = site.attribute("to") in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    entries = _entries(site, 0)
    site.emit_numbers([e if exact or not isinstance(e, Number) else _whole(e) for e in entries])


def _whole(number: Number) -> Number:
    if number.value == int(number.value):
        return number
    return Number(int(number.value), None, number.widths)


@list_rule(*_ARITHMETIC)
def arithmetic(site: Site) -> None:
    """Numbers from numbers; one that is made from a width changes with it."""
    if site.attribute("fmod", 0):
        raise Refused("takes remainders with the sign of the dividend")
    operands = [_entries(site, index) for index in site.inputs]
    count = max(len(entries) for entries in operands)
    columns = zip(*(_repeated(entries, count) for entries in operands), strict=True)
    site.emit_numbers([_computed(site, column) for column in columns])


@list_rule("Where")
def where(site: Site) -> None:
    """Picks from two, entry by entry."""
    operands = [_entries(site, index) for index in range(3)]
    count = max(len(entries) for entries in operands)
    rows = zip(*(_repeated(entries, count) for entries in operands), strict=True)
    site.emit_numbers([_picked(*row) for row in rows])


def _picked(condition: Entry, one: Entry, other: Entry) -> Entry:
    if isinstance(condition, Number) and not condition.widths:
        return one if condition.value else other
    if any(entry is not None and known(entry).widths for entry in (condition, one, other)):
        raise Refused("computes with the number of channels")
    return None


@number_rule("ConstantOfShape")
def constant_of_shape(site: Site) -> None:
    """A tensor of one number that is as wide as the channels, or a list of one number."""
    entries = site.numbers(0)
    if _has_channels(entries):
        _fill(site, entries or (), 0)
        return
    if entries is None or len(entries) != 1 or not isinstance(entries[0], Number):
        raise Refused("makes a constant of a computed shape")
    _require_list(int(entries[0].value))
    value = site.attribute("value")
    number = 0 if value is None else int(onnx.numpy_helper.to_array(value).ravel()[0])
    site.pin(entries[0])
    site.emit_numbers([Number(number)] * int(entries[0].value))


@number_rule("Expand")
def expand_number(site: Site) -> None:
    """What is repeated as often as there are channels has them; else its shape stays."""
    entries, shape = site.numbers(1) or (), site.shape(0)
    sizes = ((1,) * len(entries) + shape)[len(shape) :]
    if _has_channels(entries) and all(
        size == 1 for size, entry in zip(sizes, entries, strict=True) if isinstance(entry, Width)
    ):
        _fill(site, entries, max(len(shape) - len(entries), 0))
        return
    for index in site.inputs:
        site.pin_all(index)


def _has_channels(entries: Sequence[Entry] | None) -> bool:
    return sum(isinstance(entry, Width) for entry in entries or ()) == 1


def _fill(site: Site, entries: Sequence[Entry], shift: int) -> None:
    """Along the axis of the only width the result is the same everywhere: it has the channels."""
    axis, ids = next((i, e.ids) for i, e in enumerate(entries) if isinstance(e, Width))
    require_free(site, [entry for entry in entries if not isinstance(entry, Width)])
    site.emit(axis + shift, ids)


def _repeated(entries: Sequence[Entry], count: int) -> Sequence[Entry]:
    if len(entries) not in (1, count):
        raise Refused("shape arithmetic on lists of different lengths")
    return entries if len(entries) == count else [*entries] * count


def _computed(site: Site, operands: Sequence[Entry]) -> Entry:
    numbers = [None if entry is None else known(entry) for entry in operands]
    widths = tuple(ids for number in numbers if number for ids in number.widths)
    values = [number.value for number in numbers if number]
    if len(values) < len(numbers):
        if widths:
            raise Refused("computes with the number of channels")
        return None
    if site.node.op_type == _DIVISION and values[1] == 0:
        raise Refused("divides by 0")
    value = _required(_ARITHMETIC[site.node.op_type](*values))
    if site.node.op_type == _DIVISION and site.is_integer(0):
        value = int(value)
    return Number(value, None, widths)


def _entries(site: Site, index: int) -> Sequence[Entry]:
    """Entries of an input; those of a tensor that no width flows into don't change."""
    entries = site.numbers(index)
    if entries is not None:
        return entries
    array = site.value(index)
    if array is not None and array.ndim <= 1 and array.dtype.kind in "iufb":
        return [Number(_required(float(value))) for value in np.ravel(array)]
    shape = site.shape(index)
    count = 1 if not shape else shape[0]
    if not isinstance(count, int):
        raise Refused("shape arithmetic on a list of unknown length")
    _require_list(count)
    return [None] * count


def _required(value: float) -> float:
    """A number that a size can be."""
    if not abs(value) <= _MAX_SIZE:  # also NaN
        raise Refused(f"computes with the number {value}")
    return value


def _require_list(count: int) -> None:
    if not 0 <= count <= _MAX_LIST:
        raise Refused(f"makes a list of {count} sizes")
