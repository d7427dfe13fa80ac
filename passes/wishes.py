"""What users ask of the groups: channels that leave together, and names.

The analysis comes first, as if nothing had been asked. A wish only ties further what it found
free, so all that holds without wishes holds with them, and a wish that can't be granted has
its reason there.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
import onnx

from onnx_shapprune.errors import OptionError
from onnx_shapprune.types import Coupling, GroupWish, IntArray, Skipped, Wishes

from .graph import Graph, label, node_id
from .partition import Partition, Walked

_LOOK = "see what can be cut, and what stands in the way: onnx-shapprune inspect MODEL"


def granted(graph: Graph, partition: Partition, wishes: Wishes) -> Coupling:
    """The groups as the user asks for them.

    Args:
        graph: Index of the model.
        partition: What the analysis says when nothing is asked.
        wishes: What is asked; what is forbidden the partition knows already.

    Raises:
        OptionError: A wish can't be granted; names what stands in the way.
    """
    if not wishes.groups:
        return partition.coupling()
    requests = list(_requests(graph, partition.walked, wishes))
    for request in requests:
        request.require_possible(partition)
    joined = _joined(graph, partition.walked, requests)
    numbers = [request.group(joined) for request in requests]
    _require_apart(requests, numbers, joined)
    names = {n: r.wish.name for n, r in zip(numbers, requests, strict=True) if r.wish.name}
    coupling = joined.coupling(names)
    _require_own_names(requests, coupling)
    return coupling


def _joined(graph: Graph, walked: Walked, requests: Sequence[_Request]) -> Partition:
    tied = replace(walked, ties=[*walked.ties], locks=[*walked.locks])
    for request in requests:
        request.tie(tied)
    return Partition(graph, tied)


def matches(name: str, pattern: str) -> bool:
    """Whether a node or a tensor has a name that a pattern of the user's means."""
    return bool(name) and (name == pattern or fnmatchcase(name, pattern))


def place(wishes: Wishes) -> str:
    """How a message begins: with the file that the wishes are from."""
    return f"{wishes.source}: " if wishes.source else ""


def described(node: onnx.NodeProto) -> str:
    """A node by operator and name, as messages have it."""
    return f"{node.op_type} '{label(node)}'"


# --- what is meant ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Member:
    """A tensor whose channels are asked for, by the node that makes it: int64[width]."""

    node: onnx.NodeProto
    ids: IntArray


@dataclass(frozen=True, eq=False)
class _Request:
    """A wish, and the channels that it means in this model."""

    wish: GroupWish
    title: str
    place: str
    members: tuple[_Member, ...]

    def refused(self, reason: str, hint: str) -> OptionError:
        """The complaint that this can't be granted."""
        return OptionError(f"{self.place}{self.title}: {reason}", hint)

    def ids(self) -> IntArray:
        """Atoms of all members."""
        return np.concatenate([member.ids for member in self.members])

    def tie(self, walked: Walked) -> None:
        """Channel k of every member is one player."""
        first, *others = self.members
        for other in others:
            walked.tie(other.node, first.ids, other.ids, self.title)

    def require_possible(self, plain: Partition) -> None:
        """Check each member, and each pair, against what the graph itself asks for."""
        if not self.members:
            raise self.refused("it has no members", 'give patterns, such as "conv1"')
        if len(self.members) == 1 and not self.wish.name:
            raise self.refused(
                f"{described(self.members[0].node)} alone has nothing to leave with",
                "give more members, or a name",
            )
        for member in self.members:
            if plain.stays(member.ids).all():
                raise self._held(member, plain)
        self._require_one_width()
        for one, other in itertools.combinations(self.members, 2):
            self._require_one_order(one, other, plain)

    def group(self, joined: Partition) -> int:
        """Number of the one group that all members are in."""
        numbers = joined.groups_of(self.ids())
        if not numbers:
            raise self._held(self.members[0], joined)
        if len(numbers) > 1:
            names = ", ".join(f"'{joined.members(number)[0]}'" for number in numbers)
            raise self.refused(
                f"{described(self.members[0].node)} has channels of the groups {names}",
                "name or join the nodes that make the channels",
            )
        if joined.players(numbers[0]) == 1:
            raise self.refused(
                f"the channels of {described(self.members[0].node)} can only leave all together",
                _LOOK,
            )
        return numbers[0]

    def _held(self, member: _Member, partition: Partition) -> OptionError:
        cause = partition.held(member.ids)
        why = _because(cause) if cause else "no layer makes them"
        return self.refused(
            f"the channels of {described(member.node)} stay: {why}",
            f"leave it out of the group; {_LOOK}",
        )

    def _require_one_width(self) -> None:
        first = self.members[0]
        for other in self.members[1:]:
            if len(other.ids) != len(first.ids):
                raise self.refused(
                    f"{described(first.node)} has {len(first.ids)} channels, "
                    f"{described(other.node)} has {len(other.ids)}",
                    "join nodes of the same number of channels",
                )

    def _require_one_order(self, one: _Member, other: _Member, plain: Partition) -> None:
        """Channels that leave with another channel of the other member can't take a second."""
        here, there = plain.classes(one.ids), plain.classes(other.ids)
        crossed = np.isin(here, there) & (here != there) & ~plain.stays(one.ids)
        if crossed.any():
            k = int(crossed.argmax())
            m = int((there == here[k]).argmax())
            tied = plain.tied_by(one.ids[k], other.ids[m])
            raise self.refused(
                f"channel {k} of {described(one.node)} leaves with channel {m} of "
                f"{described(other.node)} already{f', by {tied}' if tied else ''}",
                "leave one of them out of the group",
            )


def _because(cause: Skipped) -> str:
    return f"{cause.reason} ({cause.op_type} '{cause.node}')"


def _requests(graph: Graph, walked: Walked, wishes: Wishes) -> Iterator[_Request]:
    for number, wish in enumerate(wishes.groups, 1):
        title = f"group '{wish.name}'" if wish.name else f"group number {number}"
        found: dict[str, _Member] = {}
        for pattern in wish.members:
            found |= _meant(graph, walked, pattern, f"{place(wishes)}{title}")
        yield _Request(wish, title, place(wishes), tuple(found.values()))


def _meant(graph: Graph, walked: Walked, pattern: str, where: str) -> dict[str, _Member]:
    """Tensors with channels that a pattern names; of several, those of the nodes that make any."""
    nodes = {n: node for node in graph.nodes.values() for n in _named(graph, node, pattern)}
    tracks = {name: walked.tracks[name].ids for name in nodes if name in walked.tracks}
    if not tracks:
        raise _no_channels(graph, walked, pattern, where, list(nodes.values()))
    makers = {node_id(node) for node, _ in walked.members}
    found = {name: _Member(nodes[name], ids) for name, ids in tracks.items()}
    made = {name: member for name, member in found.items() if node_id(member.node) in makers}
    return made or found


def _named(graph: Graph, node: onnx.NodeProto, pattern: str) -> list[str]:
    """Outputs of the node that a pattern names: by their names, the node's, or its weights'."""
    stored = (name for name in node.input if graph.constant_root(name) is not None)
    if any(matches(name, pattern) for name in (node.name, *stored)):
        return [name for name in node.output if name]
    return [name for name in node.output if matches(name, pattern)]


def _no_channels(
    graph: Graph, walked: Walked, pattern: str, where: str, nodes: Sequence[onnx.NodeProto]
) -> OptionError:
    if nodes:
        causes = [*walked.skipped, *(lock.cause for lock in walked.locks)]
        reason = next((f": {c.reason}" for c in causes if c.node == label(nodes[0])), "")
        what = f"names {described(nodes[0])}, which has no channels to remove{reason}"
    elif any(matches(info.name, pattern) for info in graph.model.graph.input):
        what = "is an input of the model: it has no channels to remove"
    else:
        what = "matches no node and no tensor"
    return OptionError(f"{where}: '{pattern}' {what}", _LOOK)


# --- all wishes together ------------------------------------------------------------------


def _require_apart(requests: Sequence[_Request], numbers: Sequence[int], joined: Partition) -> None:
    """No group is asked for twice."""
    for (one, here), (other, there) in itertools.combinations(
        zip(requests, numbers, strict=True), 2
    ):
        if here == there:
            tied = _meeting(one, other, joined) or "all of " + ", ".join(joined.members(here))
            raise other.refused(
                f"its channels are in one group with those of {one.title}, by {tied}",
                "ask for one group with the members of both",
            )


def _meeting(one: _Request, other: _Request, joined: Partition) -> str:
    """What ties two requests; '' where no channel is in both, and no node makes some of both."""
    for mine, yours in itertools.product(one.members, other.members):
        here, there = joined.classes(mine.ids), joined.classes(yours.ids)
        common = np.isin(here, there) & ~joined.stays(mine.ids)
        if common.any():
            k = int(common.argmax())
            m = int((there == here[k]).argmax())
            tied = joined.tied_by(mine.ids[k], yours.ids[m])
            return tied or described(yours.node)
    return next(map(described, _makers_of_both(one, other, joined)), "")


def _makers_of_both(one: _Request, other: _Request, joined: Partition) -> Iterator[onnx.NodeProto]:
    """Nodes that make channels which leave with those of either."""
    mine, yours = (joined.classes(request.ids()) for request in (one, other))
    for node, ids in joined.walked.members:
        made = joined.classes(ids[~joined.stays(ids)])
        if np.isin(made, mine).any() and np.isin(made, yours).any():
            yield node


def _require_own_names(requests: Sequence[_Request], coupling: Coupling) -> None:
    counts = Counter(group.name for group in coupling.groups)
    for request in requests:
        if counts[request.wish.name] > 1:
            raise request.refused("another group has this name already", "choose another name")
