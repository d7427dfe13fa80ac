"""From ties and locks on atoms to groups of players."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import onnx
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnx_shapprune.types import (
    NOBODY,
    BoolArray,
    ChannelGroup,
    Coupling,
    Cut,
    Follow,
    IntArray,
    Skipped,
    Slot,
)

from .graph import Graph, label
from .rules.effects import FIXED, Entry, Followed, Renumbered, Sliced, Track


@dataclass(frozen=True, eq=False)
class Lock:
    """Atoms that must stay, and why."""

    ids: IntArray
    cause: Skipped


@dataclass(frozen=True, eq=False)
class Tie:
    """Atoms that leave together, pair by pair, and what ties them."""

    one: IntArray
    other: IntArray
    cause: str


@dataclass(eq=False)
class Walked:
    """Everything the rules said about one model."""

    atoms: int = FIXED + 1
    tracks: dict[str, Track] = field(default_factory=dict)
    numbers: dict[str, tuple[Entry, ...]] = field(default_factory=dict)
    number_uses: list[Entry] = field(default_factory=list)
    ties: list[Tie] = field(default_factory=list)
    locks: list[Lock] = field(default_factory=list)
    slices: list[Sliced] = field(default_factory=list)
    reads: list[Slot] = field(default_factory=list)
    averages: list[Slot] = field(default_factory=list)
    follows: list[Followed] = field(default_factory=list)
    renumbered: list[Renumbered] = field(default_factory=list)
    options: dict[str, int] = field(default_factory=dict)
    members: list[tuple[onnx.NodeProto, IntArray]] = field(default_factory=list)
    produced: list[IntArray] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def fresh(self, count: int) -> IntArray:
        """New atoms, int64[count]."""
        self.atoms += count
        return np.arange(self.atoms - count, self.atoms, dtype=np.int64)

    def lock(
        self, node: onnx.NodeProto, ids: IntArray, reason: str, *, approximable: bool = False
    ) -> None:
        """The node is the reason why these atoms must stay."""
        cause = Skipped(label(node), node.op_type, reason, approximable=approximable)
        self.locks.append(Lock(ids, cause))

    def tie(self, node: onnx.NodeProto, one: IntArray, other: IntArray, cause: str) -> None:
        """At the node these atoms meet, pair by pair; what meets ``FIXED`` stays."""
        fixed = (one == FIXED) | (other == FIXED)
        held = np.maximum(one, other)[fixed]
        if (held != FIXED).any():
            self.lock(node, held, "its channels meet others that must stay")
        self.ties.append(Tie(one[~fixed], other[~fixed], cause))

    def skip(self, node: onnx.NodeProto, reason: str, members: Sequence[str]) -> None:
        """The node's own channels are out of reach."""
        self.skipped.append(Skipped(label(node), node.op_type, reason, tuple(members)))


class Partition:
    """Atoms sorted into players, players into groups."""

    def __init__(self, graph: Graph, walked: Walked) -> None:
        self._graph = graph
        self.walked = walked
        self._class = _components(walked.atoms, _pairs(walked.ties))
        self._locked = self._locked_classes()
        self._group, self._player, self._sizes = self._assign()

    def free(self) -> tuple[int, int]:
        """How many produced channels can be removed, and in how many parts."""
        produced = np.concatenate([np.zeros(0, np.int64), *self.walked.produced])
        return int((self._group[produced] != NOBODY).sum()), int(self._sizes.sum())

    def coupling(self, names: Mapping[int, str] = MappingProxyType({})) -> Coupling:
        """Groups in graph order, and the reasons for what stays.

        Args:
            names: Of groups by their number; the others have the name of their first member.
        """
        return Coupling(tuple(self._groups(names)), (*self._skipped(), *self._indivisible()))

    # --- answering

    def groups_of(self, ids: IntArray) -> list[int]:
        """Numbers of the groups that atoms are in, ascending; none for those that stay."""
        return sorted(set(self._group[ids].tolist()) - {NOBODY})

    def players(self, group: int) -> int:
        """Number of players of a group."""
        return int(self._sizes[group])

    def members(self, group: int) -> list[str]:
        """Names of the nodes that produce the channels of a group."""
        return self._members()[group]

    def classes(self, ids: IntArray) -> IntArray:
        """What each atom leaves with, int64[len(ids)]: equal for those that leave together."""
        return self._class[ids]

    def stays(self, ids: IntArray) -> BoolArray:
        """Which of the atoms must stay, bool[len(ids)]."""
        return self._locked[self._class[ids]]

    def held(self, ids: IntArray) -> Skipped | None:
        """The first reason why some of the atoms must stay."""
        classes = np.setdiff1d(self._class[ids], self._class[[FIXED]])
        found = (k.cause for k in self.walked.locks if np.isin(self._class[k.ids], classes).any())
        return next(found, None)

    def tied_by(self, one: int, other: int) -> str:
        """What it was that tied two atoms that leave together; '' for the same atom."""
        ties = _pairs(self.walked.ties)

        def together(count: int) -> bool:
            classes = _components(self.walked.atoms, ties[:count])
            return bool(classes[one] == classes[other])

        needed = bisect_left(range(len(ties)), True, key=together)
        return self.walked.ties[needed - 1].cause if needed else ""

    # --- sorting

    def _locked_classes(self) -> BoolArray:
        locked = np.zeros(self._class.max() + 1, bool)
        locked[self._class[FIXED]] = True
        for lock in self.walked.locks:
            locked[self._class[lock.ids]] = True
        return locked

    def _assign(self) -> tuple[IntArray, IntArray, IntArray]:
        """Group and player of every atom (NOBODY: stays), and the number of players."""
        free = [ids[~self._locked[self._class[ids]]] for ids in self.walked.produced]
        chains = [(ids[:1].repeat(len(ids) - 1), ids[1:]) for ids in free if len(ids) > 1]
        joined = _components(self.walked.atoms, [*_pairs(self.walked.ties), *chains])
        joined[self._locked[self._class]] = NOBODY
        group = _renumber(joined)
        player = np.full(self.walked.atoms, NOBODY, np.int64)
        sizes = []
        for number in range(group.max() + 1):
            mine = np.flatnonzero(group == number)
            player[mine] = _renumber(self._class[mine])
            sizes.append(player[mine].max() + 1)
        return group, player, np.asarray(sizes, np.int64)

    # --- telling

    def _groups(self, names: Mapping[int, str]) -> Iterator[ChannelGroup]:
        members = self._members()
        weights = self._cuts(
            (self._constant(s.slot), s.axis, s.ids, (s.slot,)) for s in self.walked.slices
        )
        tensors = ((name, t) for name, t in self.walked.tracks.items() if not t.parts)
        shapes = self._cuts((name, t.axis, t.ids, ()) for name, t in tensors)
        reads = self._cuts(self._by_tensor(self.walked.reads))
        averages = self._cuts(self._by_tensor(self.walked.averages))
        follows = self._follows()
        indices = self._cuts(
            (self._constant(r.slot), 0, r.ids, (r.slot,)) for r in self.walked.renumbered
        )
        for number, players in enumerate(self._sizes):
            if players > 1:
                yield ChannelGroup(
                    name=names.get(number, members[number][0]),
                    players=int(players),
                    members=tuple(members[number]),
                    weights=tuple(weights[number]),
                    reads=tuple(reads[number]),
                    shapes=tuple(shapes[number]),
                    follows=tuple(follows[number]),
                    indices=tuple(indices[number]),
                    averages=tuple(averages[number]),
                )

    def _members(self) -> list[list[str]]:
        taken: set[str] = set()
        found: list[list[str]] = [[] for _ in self._sizes]
        for node, ids in self.walked.members:
            name = _unique(label(node), taken)
            taken.add(name)
            for number in self.groups_of(ids):
                found[number].append(name)
        return found

    def _constant(self, slot: Slot) -> str:
        name = self._graph.nodes[slot.node].input[slot.index]
        return self._graph.constant_root(name) or name

    def _by_tensor(
        self, slots: Sequence[Slot]
    ) -> Iterator[tuple[str, int, IntArray, tuple[Slot, ...]]]:
        """The tracked tensors at these node inputs, each with all of its readers."""
        found: dict[str, list[Slot]] = {}
        for slot in slots:
            found.setdefault(self._graph.nodes[slot.node].input[slot.index], []).append(slot)
        for name, readers in found.items():
            track = self.walked.tracks[name]
            yield name, track.axis, track.ids, tuple(readers)

    def _cuts(
        self, parts: Iterator[tuple[str, int, IntArray, tuple[Slot, ...]]]
    ) -> list[list[Cut]]:
        found: list[list[Cut]] = [[] for _ in self._sizes]
        for tensor, axis, ids, readers in parts:
            for number in self.groups_of(ids):
                found[number].append(Cut(tensor, axis, self._owner(ids, number), readers))
        return found

    def _follows(self) -> list[list[Follow]]:
        found: list[list[Follow]] = [[] for _ in self._sizes]
        for f in self.walked.follows:
            for number in self.groups_of(np.concatenate([f.ids, *f.widths])):
                owner = self._owner(f.ids, number)
                follow = Follow(f.slot, f.attribute, f.entry, owner, f.sign, f.computed)
                found[number].append(follow)
        return found

    def _owner(self, ids: IntArray, group: int) -> IntArray:
        return np.where(self._group[ids] == group, self._player[ids], NOBODY)

    def _skipped(self) -> Iterator[Skipped]:
        """One line for each node and reason, with the nodes whose channels it holds."""
        held: dict[Skipped, dict[str, None]] = {}
        for lock in self.walked.locks:
            held.setdefault(lock.cause, {}).update(dict.fromkeys(self._held_by(lock)))
        for skipped in self.walked.skipped:
            cause = replace(skipped, members=())
            held.setdefault(cause, {}).update(dict.fromkeys(skipped.members))
        return (replace(cause, members=tuple(m)) for cause, m in held.items() if m)

    def _indivisible(self) -> Iterator[Skipped]:
        """Groups of a single player: nothing of them can leave without all of it."""
        for number, members in enumerate(self._members()):
            if self._sizes[number] == 1:
                nodes = (node for node, ids in self.walked.members if self._has(ids, number))
                first = next(nodes)
                reason = "its channels can only leave all together"
                yield Skipped(label(first), first.op_type, reason, tuple(members))

    def _has(self, ids: IntArray, number: int) -> bool:
        return bool((self._group[ids] == number).any())

    def _held_by(self, lock: Lock) -> list[str]:
        classes = np.zeros(len(self._locked), bool)
        classes[self._class[lock.ids]] = True
        classes[self._class[FIXED]] = False
        return [label(n) for n, ids in self.walked.members if classes[self._class[ids]].any()]


def _unique(name: str, taken: Container[str]) -> str:
    """The name, with a number behind it if another node has it already."""
    candidates = itertools.chain([name], (f"{name}#{i}" for i in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _pairs(ties: Sequence[Tie]) -> list[tuple[IntArray, IntArray]]:
    return [(tie.one, tie.other) for tie in ties]


def _components(count: int, edges: Sequence[tuple[IntArray, IntArray]]) -> IntArray:
    """Component of each of ``count`` atoms, int64[count]."""
    none = np.zeros(0, np.int64)
    rows = np.concatenate([none, *(one for one, _ in edges)])
    columns = np.concatenate([none, *(other for _, other in edges)])
    matrix = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    return connected_components(matrix, directed=False)[1].astype(np.int64)


def _renumber(labels: IntArray) -> IntArray:
    """Labels replaced by 0, 1, … in order of first appearance; NOBODY stays."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    present = labels[first] != NOBODY
    order = np.full(len(first), NOBODY, np.int64)
    order[np.flatnonzero(present)[np.argsort(first[present])]] = np.arange(present.sum())
    return order[inverse]
