"""What rules can say: atoms, tracks, shape entries, and the effects they add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from onnx_shapprune.types import IntArray, Slot

FIXED = 0
"""The atom of all channels that must stay."""


@dataclass(frozen=True, eq=False)
class Track:
    """The atoms along one axis of a tensor, int64[width]."""

    axis: int
    ids: IntArray


@dataclass(frozen=True)
class Number:
    """An entry of a shape tensor that is stored in the file."""

    value: int
    slot: Slot
    entry: int


@dataclass(frozen=True, eq=False)
class Width:
    """An entry of a shape tensor that is the width of a tracked axis at run time."""

    ids: IntArray


Entry = Number | Width | None
"""One entry of a shape tensor; None: no removal changes it."""


class Refused(Exception):
    """A rule can't treat this node exactly; the message is the reason."""


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
    """An attribute (or, with ``attribute`` empty, a constant's entry) that names a width."""

    slot: Slot
    attribute: str
    entry: int
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
    follows: list[Followed] = field(default_factory=list)
    produced: list[IntArray] = field(default_factory=list)
    carried: list[IntArray] = field(default_factory=list)
