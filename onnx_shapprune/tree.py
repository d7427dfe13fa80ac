"""What `inspect` shows: the model, its groups as a tree, and what stays for which reason.

Box characters and columns are the same on a terminal and elsewhere; bold type is a
terminal's alone. Long lists are shortened unless everything is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TextIO, TypeVar

from .console import console_for, number, show_approximable, show_approximated
from .inspection import CutInfo, FollowInfo, GroupInfo, Inspection
from .types import Skipped, TensorSpec

if TYPE_CHECKING:
    from rich.tree import Tree

Order = Literal["graph", "cost"]
T = TypeVar("T")

_GROUPS, _MEMBERS, _LOCKS, _REASONS, _NODES = 40, 6, 2, 12, 6
"""How many of each are shown."""

_KEY = """\
up to: what goes if a single player of the group stays; a player is a set of channels that
only leave together. --exclude NAME keeps the channels of a node, -v shows what is cut."""

_WIDEST = 48
"""Longer names push the columns behind them to the right."""


def show_inspection(
    found: Inspection, stream: TextIO, *, order: Order = "graph", verbose: bool = False
) -> None:
    """The model, what can be cut, and what stays; the first few of each unless ``verbose``."""
    console = console_for(stream)
    for title, text in _header(found):
        console.print(f"{title:<13} {text}", soft_wrap=True)
    outline = _Outline(found, verbose=verbose)
    for tree in (outline.groups(order), outline.reasons(), outline.others()):
        if tree is not None:
            console.print()
            console.print(tree)
    show_approximable(found.skipped, console)
    show_approximated(found.approximated, console)
    if found.groups and not verbose:
        console.print(f"\n{_KEY}", soft_wrap=True)


# --- the model


def _header(found: Inspection) -> Iterator[tuple[str, str]]:
    origin = f", made by {found.producer}" if found.producer else ""
    yield "model", f"{found.name} (opset {found.opset}{origin})"
    yield "sha256", found.model_sha256
    yield from (("input", _spec(spec)) for spec in found.inputs)
    yield from (("output", _spec(spec)) for spec in found.outputs)
    yield "MACs", _macs(found)
    yield "parameters", number(found.cost.parameters)
    yield "bytes", number(found.cost.bytes)
    if found.convolutions.total:
        yield "convolutions", _coverage(found)


def _spec(spec: TensorSpec) -> str:
    shape = ", ".join("?" if dim is None else str(dim) for dim in spec.shape)
    return f"{spec.name} {spec.dtype} [{shape}]"


def _macs(found: Inspection) -> str:
    if found.macs_known:
        counted = sum("Conv" in layer.op_type for layer in found.layers)
        inner = ", without those in bodies of nodes" if found.convolutions.total > counted else ""
        return number(found.cost.macs) + inner
    names = {dim for spec in found.inputs for dim in spec.shape[1:] if isinstance(dim, str)}
    options = " ".join(f"--dim {name}=N" for name in sorted(names))
    return f"unknown (sizes are open{f': use {options}' if names else ', and have no names'})"


def _coverage(found: Inspection) -> str:
    every = found.convolutions
    counted = f"{every.prunable} of {every.total} can be cut"
    if every.macs is None or not every.prunable:
        return counted
    return f"{counted}, with {_share(every.macs, found.cost.macs)} of the MACs"


def _amount(part: int, whole: int, unit: str) -> str:
    return f"{number(part)} {unit} ({_share(part, whole)})"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"


# --- what can be cut, and what can't


class _Outline:
    """Draws the trees of one inspection, their columns aligned with each other."""

    def __init__(self, found: Inspection, *, verbose: bool) -> None:
        self._found = found
        self._verbose = verbose
        self._layers = {layer.name: layer for layer in found.layers}
        self._names = max((len(n) for n in self._layers if len(n) <= _WIDEST), default=0)
        self._ops = max((len(layer.op_type) for layer in found.layers), default=0)
        self._parameters = len(number(found.cost.parameters))

    def groups(self, order: Order) -> Tree:
        """All groups with their members."""
        groups = self._found.groups
        if order == "cost":
            groups = tuple(sorted(groups, key=_saving, reverse=True))
        count = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
        title = f"can be cut: {count}, {number(self._found.cost.channels)} players"
        root = _tree(title if groups else "nothing can be cut")
        for group in self._first(groups, _GROUPS, root):
            root.children.append(self._group(group))
        return root

    def reasons(self) -> Tree | None:
        """What stands in the way, by reason; those that hold the most first."""
        causes: dict[str, list[Skipped]] = {}
        for skipped in self._found.skipped:
            causes.setdefault(_anonymous(skipped.reason), []).append(skipped)
        ranked = sorted(causes, key=lambda reason: self._held(causes[reason]) or 0, reverse=True)
        root = _tree("left alone")
        for reason in self._first(ranked, _REASONS, root):
            root.children.append(self._reason(causes[reason]))
        return root if causes else None

    def others(self) -> Tree | None:
        """Layers that no rule had anything to say about."""
        held = {name for skipped in self._found.skipped for name in skipped.members}
        rest = [x.name for x in self._found.layers if not x.groups and x.name not in held]
        root = _tree("left alone, as no channels are followed there")
        self._add_layers(rest, root)
        return root if rest else None

    # --- branches

    def _group(self, group: GroupInfo) -> Tree:
        cost = self._found.cost
        saved = _amount(group.parameters, cost.parameters, "parameters")
        if group.macs is not None:
            saved = f"{_amount(group.macs, cost.macs, 'MACs')}, {saved}"
        each = f"{group.players} players of {_channels(group.channels)}"
        branch = _tree(f"{group.name}: {each}, up to {saved}")
        self._add_layers(group.members, branch)
        for cause in self._first(self._locks(group), _LOCKS, branch):
            branch.add(f"in part: {cause.reason} ({cause.op_type} '{cause.node}')")
        for title, lines in _details(group) if self._verbose else ():
            detail = branch.add(title)
            for line in lines:
                detail.add(line)
        return branch

    def _locks(self, group: GroupInfo) -> list[Skipped]:
        """Why some channels of the members, though not these, stay."""
        members = set(group.members)
        return [cause for cause in self._found.skipped if not members.isdisjoint(cause.members)]

    def _reason(self, causes: Sequence[Skipped]) -> Tree:
        """Nodes that stand in the way for reasons that only differ in names."""
        reasons = {cause.reason for cause in causes}
        title = causes[0].reason if len(reasons) == 1 else _anonymous(causes[0].reason)
        held = self._held(causes)
        macs = "" if held is None else f": {_amount(held, self._found.cost.macs, 'MACs')}"
        branch = _tree(title + macs)
        for cause in self._first(causes, _NODES, branch):
            why = f" ({cause.reason})" if self._verbose and len(reasons) > 1 else ""
            is_alone = cause.members == (cause.node,) and not why
            node = f"{cause.op_type} '{cause.node}'{why} holds"
            self._add_layers(cause.members, branch if is_alone else branch.add(node))
        return branch

    def _add_layers(self, names: Sequence[str], branch: Tree) -> None:
        for name in self._first(names, _MEMBERS, branch):
            branch.add(self._layer(name))

    def _layer(self, name: str) -> str:
        layer = self._layers.get(name)
        if layer is None:
            return f"{name:<{self._names}}  in a body"
        count = f"{number(layer.parameters):>{self._parameters}} parameters"
        macs = "" if layer.macs is None else f"{self._macs(layer.macs)}  "
        return f"{name:<{self._names}}  {layer.op_type:<{self._ops}}  {macs}{count}"

    def _macs(self, count: int) -> str:
        whole = self._found.cost.macs
        return f"{number(count):>{len(number(whole))}} MACs {_share(count, whole):>7}"

    def _held(self, causes: Sequence[Skipped]) -> int | None:
        """Multiply-accumulates of the layers that stay for these causes; None if not known."""
        names = {name for cause in causes for name in cause.members}
        layers = [self._layers.get(name) for name in names]
        macs = [layer.macs for layer in layers if layer and layer.macs is not None]
        return sum(macs) if len(macs) == len(names) else None

    def _first(self, entries: Sequence[T], most: int, branch: Tree) -> Iterator[T]:
        """The first entries, and a line for the others."""
        shown = len(entries) if self._verbose or len(entries) <= most + 1 else most
        yield from entries[:shown]
        if shown < len(entries):
            branch.add(f"… {len(entries) - shown} more (-v shows all)")


def _details(group: GroupInfo) -> Iterator[tuple[str, list[str]]]:
    """What shrinks and where absent players are masked, by kind."""
    kinds = {
        "constants that shrink": [_cut(cut, "read by") for cut in group.weights],
        "indices that are renumbered": [_cut(cut, "read by") for cut in group.indices],
        "numbers that follow": [_follow(follow) for follow in group.follows],
        "tensors that become narrower": [_cut(cut, "") for cut in group.widths],
        "masked where it is read": [_cut(cut, "by") for cut in group.reads],
    }
    return ((title, lines) for title, lines in kinds.items() if lines)


def _cut(cut: CutInfo, how: str) -> str:
    size = f"{cut.width}" if cut.cut == cut.width else f"{cut.cut} of {cut.width}"
    readers = f", {how} {', '.join(cut.readers)}" if cut.readers else ""
    return f"'{cut.tensor}' axis {cut.axis} ({size}){readers}"


def _follow(follow: FollowInfo) -> str:
    what = f"attribute '{follow.attribute}'" if follow.attribute else f"input '{follow.input}'"
    entry = "" if follow.entry is None else f", entry {follow.entry}"
    return f"{what} of {follow.node}{entry}"


def _channels(counts: Sequence[int]) -> str:
    few, many = min(counts), max(counts)
    each = f"{many} channel" if few == many else f"{few} to {many} channel"
    return each if many == 1 else f"{each}s"


def _anonymous(reason: str) -> str:
    """The reason without the names in it."""
    return re.sub("'[^']*'", "'…'", reason)


def _saving(group: GroupInfo) -> tuple[int, int]:
    return group.macs or 0, group.parameters


def _tree(title: str) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    return Tree(Text(title, style="bold"))
