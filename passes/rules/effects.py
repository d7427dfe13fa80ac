"""What rules can say: atoms, tracks, shape entries, and the effects they add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from onnx_shapprune.types import Array, IntArray, Slot

FIXED = 0
"""The atom of all channels that must stay."""


@dataclass(frozen=True, eq=False)
class Track:
    """The atoms along one axis of a tensor, int64[width].

    A sequence of tensors has the atoms of each in ``parts``, and all of them in ``ids``.
    """

    axis: int
    ids: IntArray
    parts: tuple[IntArray, ...] = ()


@dataclass(frozen=True, eq=False)
class Place:
    """Where a number can be changed: an entry of the constant at a node input.

    ``computed`` is the whole tensor where none is stored: a constant then takes its place.
    """

    slot: Slot
    entry: int
    computed: Array | None = None


@dataclass(frozen=True, eq=False)
class Number:
    """An entry of a shape tensor that is the same whatever the model is fed.

    ``place``: where it can be changed, None if nowhere. ``widths`` are the widths that it is
    computed from: it changes with them, in a way that has to be overruled.
    """

    value: float
    place: Place | None = None
    widths: tuple[IntArray, ...] = ()


@dataclass(frozen=True, eq=False)
class Width:
    """An entry of a shape tensor that is the width of a tracked axis at run time."""

    ids: IntArray
    place: Place | None = None


Entry = Number | Width | None
"""One entry of a shape tensor; None: not known, but no removal changes it."""


class Refused(Exception):
    """A rule can't treat this node exactly; the message is the reason."""

    approximable = False


class Inexact(Refused):
    """A rule could treat this node if a mean over the channels that are left will do."""

    approximable = True


class Atoms(Protocol):
    """Where new atoms come from."""

    def fresh(self, count: int) -> IntArray:
        """New atoms, int64[count]."""
        ...


@dataclass(frozen=True, eq=False)
class Sliced:
    """A constant input that shrinks along ``axis`` with the atoms ``ids``."""

    slot: Slot
    axis: int
    ids: IntArray


@dataclass(frozen=True, eq=False)
class Followed:
    """A number that names the width of ``ids``, counted down (or, from the end, up) with it.

    It is an attribute, or with ``attribute`` empty the entry of a constant. ``computed`` and
    ``widths`` as in :class:`Number`.
    """

    slot: Slot
    attribute: str
    entry: int
    ids: IntArray
    sign: int = 1
    computed: Array | None = None
    widths: tuple[IntArray, ...] = ()


@dataclass(frozen=True, eq=False)
class Renumbered:
    """A constant of indices into an axis with the atoms ``ids``."""

    slot: Slot
    ids: IntArray


@dataclass(eq=False)
class Effects:
    """What a rule said; applied only if it came to its end."""

    tracks: dict[str, Track] = field(default_factory=dict)
    numbers: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    ties: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    locks: list[tuple[IntArray, str]] = field(default_factory=list)
    slices: list[Sliced] = field(default_factory=list)
    reads: list[Slot] = field(default_factory=list)
    averages: list[Slot] = field(default_factory=list)
    follows: list[Followed] = field(default_factory=list)
    renumbered: list[Renumbered] = field(default_factory=list)
    produced: list[IntArray] = field(default_factory=list)
    carried: list[IntArray] = field(default_factory=list)
    options: int = 1
