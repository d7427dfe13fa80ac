"""The dependency analysis: rules applied in graph order, then the groups that follow.

Rules tie atoms and lock atoms. Atoms tied in any way are one *player*, the players
that one node produces are in one *group*. Ties and locks are only collected on the
way; one connected-components call at the end decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import onnx

from onnx_shapprune.errors import OptionError
from onnx_shapprune.types import NO_WISHES, Coupling, IntArray, Slot, Wishes

from .graph import STANDARD_DOMAINS, TOP, Graph, convolutions, label, node_id
from .partition import Partition, Walked
from .rules import NUMBER_READERS, NUMBER_RULES, PRODUCERS, RULES
from .rules.effects import Effects, Number, Refused
from .rules.registry import Rule, operator
from .rules.site import Site, known
from .stored import absorbed, is_kernel, stays_anyhow
from .wishes import described, granted, matches, place

_MAX_CHOICES = 64


def find_groups(graph: Graph, wishes: Wishes = NO_WISHES) -> Coupling:
    """All groups of channels that can be removed exactly, and why the others can't.

    Args:
        graph: Index of the model.
        wishes: What the user asks. Nodes whose name, or one of whose tensors' names,
            matches an excluded or forbidden pattern keep all their channels. Where means are
            approximate, the channels that stay change with those that leave.

    Raises:
        OptionError: A pattern matches nothing in the model, or a wish can't be granted.
    """
    best = _partition(graph, wishes, {})
    choices: dict[str, int] = {}
    for node, options in _open_choices(best.walked):
        for option in range(1, options):
            tried = _partition(graph, wishes, {**choices, node: option})
            if tried.free() > best.free():
                best, choices = tried, {**choices, node: option}
    return granted(graph, best, wishes)


def _open_choices(walked: Walked) -> list[tuple[str, int]]:
    """Nodes with several ways to go on; the first ones, where trying all would take long."""
    return list(walked.options.items())[:_MAX_CHOICES]


def _partition(graph: Graph, wishes: Wishes, choices: Mapping[str, int]) -> Partition:
    """Walk the graph and sort what the rules said."""
    walk = _Walk(graph, choices, approximate=wishes.approximate)
    for node in graph.nodes.values():
        walk.visit(node)
    walk.lock_exposed()
    walk.lock_shared_numbers()
    walk.lock_shared_kernels()
    for pattern in wishes.exclude:
        walk.lock_named(pattern, f"--exclude '{pattern}'", f"excluded by '{pattern}'")
    for pattern in wishes.forbid:
        said = f"{place(wishes)}forbid '{pattern}'"
        walk.lock_named(pattern, said, f"forbidden by '{pattern}'")
    return Partition(graph, walk.walked)


class _Walk:
    """Applies the rules and collects what they say."""

    def __init__(self, graph: Graph, choices: Mapping[str, int], *, approximate: bool) -> None:
        self.graph = graph
        self.walked = Walked()
        self._choices = choices
        self._approximate = approximate

    def visit(self, node: onnx.NodeProto) -> None:
        """Let the node's rule speak; where it can't, what the node reads must stay."""
        self._skip_bodies(node)
        if not self._is_concerned(node):
            return
        site = self._site(node)
        atoms = self.walked.atoms
        try:
            self._rule(node, site)(site)
        except Refused as refusal:
            self.walked.atoms = atoms  # what the rule made before it gave up is nobody's
            self._refuse(node, refusal)
        else:
            self._apply(node, site.effects)
        if not any(name in self.walked.numbers for name in node.output):
            for index in self._number_inputs(node):
                self.walked.number_uses += self.walked.numbers[node.input[index]]

    def _skip_bodies(self, node: onnx.NodeProto) -> None:
        """Say why the convolutions in a node's bodies are left alone, where they are."""
        for reason, nodes in self.graph.hidden(node):
            self.walked.skip(node, reason, list(convolutions(nodes)))

    def _site(self, node: onnx.NodeProto) -> Site:
        return Site(
            self.graph,
            node,
            self.walked.tracks,
            self.walked.numbers,
            self.walked,
            self._choices.get(node_id(node), 0),
            approximate=self._approximate,
        )

    def _is_concerned(self, node: onnx.NodeProto) -> bool:
        found = (*self.walked.tracks.keys() & set(node.input), *self._number_inputs(node))
        return bool(found) or operator(node) in PRODUCERS or "Conv" in node.op_type

    def _number_inputs(self, node: onnx.NodeProto) -> list[int]:
        return [i for i, name in enumerate(node.input) if name in self.walked.numbers]

    def _rule(self, node: onnx.NodeProto, site: Site) -> Rule:
        """The node's rule; numbers that it does not look at stay what they are."""
        op = operator(node)
        if self.graph.calls_function(node):
            raise Refused("a function of the model's own, whose opset is not that of the model")
        if op not in RULES and node.domain not in STANDARD_DOMAINS:
            raise Refused(f"no rule for operators of domain '{node.domain}'")
        numeric, tracked = self._number_inputs(node), bool(site.tracked())
        if numeric and not tracked and op in NUMBER_RULES:
            return NUMBER_RULES[op]
        for index in numeric:
            if not (tracked and (op, index) in NUMBER_READERS):
                site.pin_all(index)
        if not tracked and op not in PRODUCERS:
            return _no_more
        if op not in RULES:
            raise Refused("no rule for this operator")
        return RULES[op]

    def _widths(self, node: onnx.NodeProto, index: int) -> list[IntArray]:
        entries = self.walked.numbers.get(node.input[index], ())
        return [ids for entry in entries if entry for ids in known(entry).widths]

    def _refuse(self, node: onnx.NodeProto, refusal: Refused) -> None:
        reason = str(refusal)
        for index, name in enumerate(node.input):
            track = self.walked.tracks.get(name)
            for ids in [track.ids] if track else self._widths(node, index):
                self.walked.lock(node, ids, reason, approximable=refusal.approximable)
        if "Conv" in node.op_type:
            self.walked.skip(node, reason, [label(node)])

    def _apply(self, node: onnx.NodeProto, effects: Effects) -> None:
        self.walked.tracks |= effects.tracks
        self.walked.numbers |= effects.numbers
        self.walked.slices += effects.slices
        self.walked.reads += effects.reads
        self.walked.averages += effects.averages
        self.walked.follows += effects.follows
        self.walked.renumbered += effects.renumbered
        if effects.options > 1:
            self.walked.options[node_id(node)] = effects.options
        for ids in effects.produced:
            self.walked.members.append((node, ids))
            self.walked.produced.append(ids)
        for ids in effects.carried:
            self.walked.members.append((node, ids))
        for ids, reason in effects.locks:
            self.walked.lock(node, ids, reason)
        for one, other in effects.ties:
            self._tie(node, one, other)

    def _tie(self, node: onnx.NodeProto, one: IntArray, other: IntArray) -> None:
        self.walked.tie(node, one, other, described(node))

    def lock_exposed(self) -> None:
        """Graph outputs, and what the bodies of other nodes read, keep their channels."""
        for name, track in self.walked.tracks.items():
            self._lock_if_exposed(name, track.ids, "its channels are")
        for name, entries in self.walked.numbers.items():
            if name in self.graph.outputs or name in self.graph.captured:
                self.walked.number_uses += entries
            for ids in (ids for entry in entries if entry for ids in known(entry).widths):
                self._lock_if_exposed(name, ids, "the number of its channels is")

    def _lock_if_exposed(self, name: str, ids: IntArray, what: str) -> None:
        if name in self.graph.outputs:
            whose = "the model's" if self.graph.scope(name) == TOP else "its body's"
            reason = f"{what} {whose} output '{name}'"
        elif name in self.graph.captured:
            reason = f"{what} read inside the body of another node as '{name}'"
        else:
            return
        self.walked.lock(self.graph.producers[name], ids, reason)

    def lock_shared_numbers(self) -> None:
        """A stored number that several nodes use on the way follows for all or not at all.

        (Where nodes read the constant itself, each can get its own copy.)
        """
        places = (e.place for e in self.walked.number_uses if isinstance(e, Number))
        uses = Counter((place.slot, place.entry) for place in places if place)
        followers: dict[tuple[Slot, int], list[IntArray]] = {}
        for followed in self.walked.follows:
            if not followed.attribute and len(followed.ids):
                key = (followed.slot, followed.entry)
                followers.setdefault(key, []).append(followed.ids)
        for (slot, entry), many in followers.items():
            for ids in many:
                if uses[slot, entry] > len(many) or len(ids) != len(many[0]):
                    reason = "the number of its channels is stored where it also means another"
                    self.walked.lock(self.graph.nodes[slot.node], ids, reason)
                else:
                    self._tie(self.graph.nodes[slot.node], many[0], ids)

    def lock_shared_kernels(self) -> None:
        """A kernel with several readers shrinks for all of them alike, or not at all.

        Vectors and shape constants don't need that: where their readers disagree each
        gets its own copy, which costs next to nothing.
        """
        by_root: dict[str, list[tuple[int, IntArray, str]]] = {}
        for sliced in self.walked.slices:
            name = self.graph.nodes[sliced.slot.node].input[sliced.slot.index]
            root = self.graph.first_twin(self.graph.constant_root(name) or name)
            by_root.setdefault(root, []).append((sliced.axis, sliced.ids, sliced.slot.node))
        gone = absorbed(self.graph, [sliced.slot for sliced in self.walked.slices])
        for root, slices in by_root.items():
            if is_kernel(self.graph, root):
                self._share(root, slices, gone)

    def _share(
        self, root: str, slices: list[tuple[int, IntArray, str]], gone: frozenset[str]
    ) -> None:
        readers = sum(slot.node not in gone for slot in self.graph.shared_slots(root))
        stays = self.graph.is_exposed(root) or stays_anyhow(self.graph, root, gone)
        for axis in {axis for axis, _, _ in slices}:
            along = [(ids, node) for a, ids, node in slices if a == axis]
            if stays or len(along) != readers:
                self._lock_kernel(root, along)
            for ids, node in along[1:]:
                self._tie(self.graph.nodes[node], along[0][0], ids)

    def _lock_kernel(self, root: str, along: Iterable[tuple[IntArray, str]]) -> None:
        for ids, node in along:
            reason = f"its weight '{root}' is also used where it can't shrink"
            self.walked.lock(self.graph.nodes[node], ids, reason)

    def lock_named(self, pattern: str, said: str, reason: str) -> None:
        """Nodes that a pattern of the user names keep their channels."""
        matched = [n for n in self.graph.nodes.values() if _matches(n, pattern)]
        if not matched:
            raise OptionError(
                f"{said} matches no node and no tensor",
                "see the names with: onnx-shapprune inspect MODEL",
            )
        for node in matched:
            for name in node.output:
                if name in self.walked.tracks:
                    self.walked.lock(node, self.walked.tracks[name].ids, reason)


def _no_more(_: Site) -> None:
    """The rule of a node that nothing tracked arrives at."""


def _matches(node: onnx.NodeProto, pattern: str) -> bool:
    return any(matches(name, pattern) for name in (node.name, *node.output, *node.input))
