"""What a rule sees of one node, and what it may say about it.

A channel that may leave is an *atom*: an integer. A tensor is *tracked* when the
atoms along one of its axes are known. A rule reads the tracks of a node's inputs and
says which atoms stand where on its outputs, which constants shrink with them, and
which numbers follow. All of it is index arrays: nothing here computes on values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnx_shapprune.types import Array, IntArray, Shape, Slot

from ..folding import folded
from ..graph import Graph, attribute, node_id
from ..stored import is_stored, origin, stored_shape
from .constants import cut_constant, stored_numbers
from .effects import (
    Atoms,
    Effects,
    Entry,
    Followed,
    Inexact,
    Number,
    Place,
    Refused,
    Renumbered,
    Track,
    Width,
)

_MAX_WIDTH = 2**24


class Site:
    """One node as its rule sees it."""

    def __init__(
        self,
        graph: Graph,
        node: onnx.NodeProto,
        tracks: Mapping[str, Track],
        numbers: Mapping[str, tuple[Entry, ...]],
        atoms: Atoms,
        choice: int = 0,
        *,
        approximate: bool = False,
    ) -> None:
        self.node = node
        self.opset = graph.opset
        self.approximate = approximate
        self.effects = Effects()
        self._graph = graph
        self._tracks = tracks
        self._numbers = numbers
        self._atoms = atoms
        self._choice = choice

    # --- looking

    @property
    def inputs(self) -> range:
        """Indices of all inputs."""
        return range(len(self.node.input))

    def has(self, index: int) -> bool:
        """Whether an (optional) input is given."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def used(self, output: int) -> bool:
        """Whether an (optional) output is read by anything."""
        if output >= len(self.node.output) or not self.node.output[output]:
            return False
        name = self.node.output[output]
        graph = self._graph
        return bool(graph.readers.get(name)) or name in graph.captured | graph.outputs

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value."""
        return attribute(self.node, name, default)

    def track(self, index: int) -> Track | None:
        """Track of an input, or None."""
        return self._tracks.get(self.node.input[index]) if self.has(index) else None

    def tracked(self) -> list[tuple[int, Track]]:
        """All tracked inputs with their indices."""
        return [(i, track) for i in self.inputs if (track := self.track(i)) is not None]

    def only_track(self, axis: int | None = None) -> Track:
        """Track of input 0, refused if it isn't there or runs along another axis."""
        track = self.track(0)
        if track is None:
            raise Refused("only its first input may carry channels")
        if axis is not None and track.axis != axis:
            raise Refused(f"channels run along axis {track.axis}, it expects axis {axis}")
        return track

    def shape(self, index: int) -> Shape:
        """Shape of an input; refused if not even the rank is known, or it can't be that."""
        name = self.node.input[index]
        shape = self._graph.shape(name)
        if shape is None:
            raise Refused(f"the rank of its input '{name}' is not known")
        track = self.track(index)
        if track is not None and not _is_possible(shape, track):
            raise Refused(f"the recorded shape of its input '{name}' is wrong")
        return shape

    def output_shape(self) -> Shape:
        """Shape of the first output; refused if not even the rank is known."""
        shape = self._graph.shape(self.node.output[0])
        if shape is None:
            raise Refused("the rank of its output is not known")
        return shape

    def is_integer(self, index: int) -> bool:
        """Whether an input has integers."""
        kind = self._graph.elem_type(self.node.input[index])
        return kind in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)

    def declared_shape(self, index: int) -> Shape:
        """Shape of an input as far as the model itself fixes it."""
        return self._graph.declared_shape(self.node.input[index]) or ()

    def constant(self, index: int) -> Array | None:
        """Value of a constant input, None if it is missing or computed."""
        return self._graph.constant(self.node.input[index]) if self.has(index) else None

    def value(self, index: int) -> Array | None:
        """Value of an input that is stored, or computed from stored ones only; else None."""
        if not self.has(index):
            return None
        array = self.constant(index)
        return folded(self._graph, self.node.input[index]) if array is None else array

    def is_constant(self, index: int) -> bool:
        """Whether an input is stored in the file, in this form or another."""
        return is_stored(self._graph, self.node.input[index])

    def weight_shape(self, index: int, what: str = "weight", least: int = 0) -> tuple[int, ...]:
        """Shape of a constant input; refused if it is computed or has a rank below ``least``."""
        name = self.node.input[index]
        shape = stored_shape(self._graph, name)
        if shape is None:
            raise Refused(f"its {what} '{name}' is {origin(self._graph, name)}")
        if len(shape) < least:
            raise Refused(f"its {what} '{name}' has rank {len(shape)}, not {least} or more")
        return shape

    def integers(self, index: int, name: str) -> list[int] | None:
        """A list of integers that older opsets have as attribute and newer ones as input.

        None where neither is given; refused where the input is computed.
        """
        if not self.has(index):
            value = self.attribute(name)
            return None if value is None else [int(v) for v in value]
        array = self.value(index)
        if array is None:
            raise Refused(f"its {name} are computed at run time")
        if array.dtype.kind not in "iu":
            raise Refused(f"its {name} are no integers")
        return [int(v) for v in np.ravel(array)]

    def numbers(self, index: int) -> tuple[Entry, ...] | None:
        """Entries of a shape tensor at an input; None if nothing is known of it."""
        name = self.node.input[index]
        entries = self._numbers.get(name) or stored_numbers(self._graph, self._slot(index))
        if entries is None:
            array = self.value(index)
            if array is None or array.ndim > 1 or array.dtype.kind != "i":
                return None
            entries = tuple(Number(int(value)) for value in np.ravel(array))
        if len(entries) == 1 and isinstance(entries[0], Width):
            (number,) = self._placed(index, entries)
            return (Width(entries[0].ids, number.place),)
        movable = all(isinstance(e, Number) for e in entries)
        loose = any(isinstance(e, Number) and (e.place is None or e.widths) for e in entries)
        return self._placed(index, entries) if movable and loose else entries

    def fixed_numbers(self, index: int) -> tuple[Number, ...]:
        """Entries of a shape tensor, each of which can be given another value.

        Raises:
            Refused: Some are not known before the model runs.
        """
        entries = self.numbers(index)
        if entries is None or any(entry is None for entry in entries):
            raise Refused(f"its input '{self.node.input[index]}' is computed at run time")
        if all(isinstance(e, Number) and e.place is not None for e in entries):
            return tuple(e for e in entries if isinstance(e, Number))
        return self._placed(index, entries)

    def _placed(self, index: int, entries: Sequence[Entry]) -> tuple[Number, ...]:
        """Known entries with this input as their place: a constant can be put there."""
        numbers = [known(entry) for entry in entries]
        name = self.node.input[index]
        values = np.asarray([number.value for number in numbers]).astype(self._type_of(name))
        whole = values if self._graph.shape(name) != () else values.reshape(())
        return tuple(
            Number(number.value, Place(self._slot(index), i, whole), number.widths)
            for i, number in enumerate(numbers)
        )

    def _type_of(self, tensor: str) -> np.dtype[Any]:
        kind = self._graph.elem_type(tensor)
        return onnx.helper.tensor_dtype_to_np_dtype(kind or onnx.TensorProto.INT64)

    # --- saying

    def emit(self, axis: int, ids: IntArray, output: int = 0) -> None:
        """The atoms along ``axis`` of an output are ``ids``."""
        require_width(len(ids))
        if output < len(self.node.output) and self.node.output[output]:
            self.effects.tracks[self.node.output[output]] = Track(axis, ids)

    def emit_sequence(self, axis: int, parts: Sequence[IntArray]) -> None:
        """The output is a sequence of tensors with these atoms along ``axis``."""
        ids = np.concatenate(parts)
        self.effects.tracks[self.node.output[0]] = Track(axis, ids, tuple(parts))

    def emit_numbers(self, entries: Sequence[Entry]) -> None:
        """The output is a shape tensor with these entries."""
        self.effects.numbers[self.node.output[0]] = tuple(entries)

    def produce(self, count: int) -> IntArray:
        """New atoms that this node is the producer of."""
        ids = self._atoms.fresh(count)
        self.effects.produced.append(ids)
        return ids

    def carry(self, ids: IntArray) -> None:
        """This node has weights of its own for channels that another one produces."""
        self.effects.carried.append(ids)

    def tie(self, one: IntArray, other: IntArray) -> None:
        """Atoms at the same position leave together."""
        if len(one) != len(other):
            raise Refused(f"{len(one)} channels meet {len(other)}")
        self.effects.ties.append((one, other))

    def lock(self, ids: IntArray, reason: str) -> None:
        """These atoms must stay."""
        self.effects.locks.append((ids, reason))

    def slice(self, index: int, axis: int, ids: IntArray) -> None:
        """A constant input shrinks along ``axis`` with ``ids``."""
        cut_constant(self._graph, self.effects, self._slot(index), axis, ids)

    def read(self, index: int) -> None:
        """The node sums over the channels of an input: the place to mask them."""
        self.effects.reads.append(self._slot(index))

    def average(self, index: int, otherwise: str) -> None:
        """The node takes a mean over the channels of an input: absent ones have no weight in it.

        Raises:
            Inexact: That is not allowed; ``otherwise`` is the reason.
            Refused: The mean would be a mean of integers.
        """
        if not self.approximate:
            raise Inexact(otherwise)
        if self.is_integer(index):
            raise Refused("it takes a mean of integers over the channels")
        self.effects.averages.append(self._slot(index))

    def follow_attribute(self, name: str, ids: IntArray, entry: int = -1, sign: int = 1) -> None:
        """An attribute names the width of ``ids``; with sign −1 it is counted from the end."""
        self.effects.follows.append(Followed(self._slot(0), name, entry, ids, sign))

    def follow_entry(self, number: Number, ids: IntArray, sign: int = 1) -> None:
        """A number names the width of ``ids``; with sign −1 it is counted from the end."""
        place = number.place
        if place is None:
            raise Refused("a number of channels is computed in a way not followed")
        self.effects.follows.append(
            Followed(place.slot, "", place.entry, ids, sign, place.computed, number.widths)
        )

    def pin(self, number: Number) -> None:
        """A number that is computed from widths stays what it is."""
        if number.widths:
            self.follow_entry(number, np.zeros(0, np.int64))

    def pin_all(self, index: int) -> None:
        """The numbers at an input stay what they are, where some are computed from widths."""
        entries = self.numbers(index) if self.has(index) else None
        if any(entry is not None and known(entry).widths for entry in entries or ()):
            for number in self.fixed_numbers(index):
                self.pin(number)

    def renumber(self, index: int, ids: IntArray) -> None:
        """A constant input has indices into an axis with the atoms ``ids``."""
        if self._graph.constant_root(self.node.input[index]) is None:
            name = self.node.input[index]
            raise Refused(f"its constant '{name}' is {origin(self._graph, name)}")
        self.effects.renumbered.append(Renumbered(self._slot(index), ids))

    def choose(self, options: int) -> int:
        """Which of several equally exact ways to go on is taken; all of them are tried."""
        self.effects.options = options
        return self._choice

    def _slot(self, index: int) -> Slot:
        return Slot(node_id(self.node), index)


def require_width(count: int) -> None:
    """Refuse what has no channels, or more than can be followed."""
    if not 0 < count <= _MAX_WIDTH:
        raise Refused(f"it makes {count} channels")


def _is_possible(shape: Shape, track: Track) -> bool:
    """Whether a tensor of this shape can have these atoms."""
    if track.axis >= len(shape):
        return False
    size = shape[track.axis]
    return bool(track.parts) or not isinstance(size, int) or size == len(track.ids)


def known(entry: Entry) -> Number:
    """An entry as a number; the width of an axis is one that changes with it."""
    if isinstance(entry, Width):
        return Number(len(entry.ids), entry.place, (entry.ids,))
    assert entry is not None
    return entry
