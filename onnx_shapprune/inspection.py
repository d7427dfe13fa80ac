"""What a model is made of: groups, what they cost, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from .calibration import is_batched
from .cost import CostModel
from .errors import OptionError
from .model_io import Model
from .passes.averages import approximated
from .passes.couplings import find_groups
from .passes.graph import STANDARD_DOMAINS, Graph, convolutions, label, node_id
from .passes.shapes import bound_shape
from .report import SCHEMA_VERSION, versions
from .types import (
    NO_WISHES,
    NOBODY,
    Approximated,
    ChannelGroup,
    Cost,
    Cut,
    Follow,
    Shape,
    Skipped,
    TensorSpec,
    Wishes,
)


@dataclass(frozen=True)
class LayerInfo:
    """A node that multiplies, or makes channels of a group.

    ``macs`` is None where the model's sizes are open; ``parameters`` are the stored numbers
    that it reads. ``groups`` are those that it makes channels of; none: all its channels stay.
    """

    name: str
    op_type: str
    macs: int | None
    parameters: int
    groups: tuple[str, ...]


@dataclass(frozen=True)
class ConvolutionsInfo:
    """How many convolutions there are (those in bodies of nodes too), how many are in groups.

    ``macs`` are the multiply-accumulates of those that are; None where sizes are open.
    """

    total: int
    prunable: int
    macs: int | None


@dataclass(frozen=True)
class CutInfo:
    """An axis of a tensor: ``cut`` of its ``width`` positions belong to the group's players.

    ``readers`` are the nodes through which that takes effect.
    """

    tensor: str
    axis: int
    width: int
    cut: int
    readers: tuple[str, ...]


@dataclass(frozen=True)
class FollowInfo:
    """A number that names a width: an ``attribute`` of a node, or what an ``input`` of it holds.

    ``entry`` is the index in a list; None for a single number.
    """

    node: str
    attribute: str | None
    input: str | None
    entry: int | None


@dataclass(frozen=True)
class GroupInfo:
    """One group; ``macs`` and ``parameters`` are what goes if a single player stays.

    ``macs`` is None where the model's sizes are open. ``channels`` are each player's, over
    all members; ``reads`` is where absent players are masked; the rest is what shrinks.
    """

    name: str
    players: int
    members: tuple[str, ...]
    macs: int | None
    parameters: int
    channels: tuple[int, ...]
    widths: tuple[CutInfo, ...]
    weights: tuple[CutInfo, ...]
    indices: tuple[CutInfo, ...]
    follows: tuple[FollowInfo, ...]
    reads: tuple[CutInfo, ...]


@dataclass(frozen=True)
class Inspection:
    """Result of the dependency analysis, for people and machines."""

    name: str
    model_sha256: str
    producer: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    cost: Cost
    macs_known: bool
    convolutions: ConvolutionsInfo
    layers: tuple[LayerInfo, ...]
    groups: tuple[GroupInfo, ...]
    skipped: tuple[Skipped, ...]
    approximated: tuple[Approximated, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data; ``cost.macs`` is null where the model's sizes are open."""
        data = {"schema_version": SCHEMA_VERSION, **asdict(self), "versions": versions()}
        if not data.pop("macs_known"):
            data["cost"]["macs"] = None
        return data


def inspect_model(
    model: Model, dims: Mapping[str, int] | None = None, wishes: Wishes = NO_WISHES
) -> Inspection:
    """Analyse a model without running it.

    Args:
        model: The model.
        dims: Values of symbolic dimensions; without them, sizes may stay open.
        wishes: What is asked of the groups.

    Raises:
        OptionError: No input has a dimension of a given name, or a pattern matches nothing,
            or a wish can't be granted.
    """
    dims = dims or {}
    _require_known(dims, model)
    graph = Graph(model.proto, {s.name: bound_shape(s.shape, dims) for s in model.inputs})
    coupling = find_groups(graph, wishes)
    batched = is_batched(model.inputs)
    single = Graph(
        model.proto,
        {s.name: _single(bound_shape(s.shape, dims), batched=batched) for s in model.inputs},
    )
    costs = CostModel(single, coupling.groups)
    layers = tuple(_layers(graph, costs, coupling.groups))
    return Inspection(
        name=model.path.name if model.path else model.proto.graph.name,
        model_sha256=model.sha256,
        producer=f"{model.proto.producer_name} {model.proto.producer_version}".strip(),
        opset=graph.opset,
        inputs=model.inputs,
        outputs=model.outputs,
        cost=costs.cost(costs.full()),
        macs_known=not costs.unmeasured,
        convolutions=_convolutions(graph, layers),
        layers=layers,
        groups=tuple(_groups(graph, costs, coupling.groups)),
        skipped=coupling.skipped,
        approximated=approximated(graph, coupling.groups),
    )


def _single(shape: Shape, *, batched: bool) -> Shape:
    """The shape with an open batch taken as one."""
    return (1, *shape[1:]) if batched and not isinstance(shape[0], int) else shape


def _require_known(dims: Mapping[str, int], model: Model) -> None:
    known = sorted({d for s in model.inputs for d in s.shape if isinstance(d, str)})
    for name in dims:
        if name not in known:
            there = ", ".join(f"'{d}'" for d in known) or "none: all are fixed"
            raise OptionError(f"no input has a dimension '{name}'", f"the dimensions are {there}")


# --- layers


def _layers(
    graph: Graph, costs: CostModel, groups: tuple[ChannelGroup, ...]
) -> Iterator[LayerInfo]:
    """All nodes that multiply or are members, in graph order."""
    macs, names = costs.macs_by_node(), _member_names(graph, groups)
    for ident, node in graph.nodes.items():
        name = names.get(ident, label(node))
        if ident in macs or ident in names or _is_convolution(node):
            yield LayerInfo(
                name=name,
                op_type=node.op_type,
                macs=None if costs.unmeasured else macs.get(ident, 0),
                parameters=costs.parameters_of(node),
                groups=tuple(group.name for group in groups if name in group.members),
            )


def _member_names(graph: Graph, groups: tuple[ChannelGroup, ...]) -> dict[str, str]:
    """What the members of groups are called, by node: equal names have a number behind them."""
    found: dict[str, str] = {}
    for group in groups:
        tensors = (cut.tensor for cut in group.shapes if cut.tensor in graph.producers)
        makers: dict[str, list[str]] = {}
        for node in {node_id(n): n for n in map(graph.producers.__getitem__, tensors)}.values():
            makers.setdefault(label(node), []).append(node_id(node))
        for name in group.members:
            alike = makers.get(name) or makers[name.rpartition("#")[0]]
            found.setdefault(alike.pop(0) if len(alike) > 1 else alike[0], name)
    return found


def _is_convolution(node: onnx.NodeProto) -> bool:
    return "Conv" in node.op_type and node.domain in STANDARD_DOMAINS


def _convolutions(graph: Graph, layers: tuple[LayerInfo, ...]) -> ConvolutionsInfo:
    hidden = (nodes for node in graph.nodes.values() for _, nodes in graph.hidden(node))
    inner = sum(len(list(convolutions(nodes))) for nodes in hidden)
    every = [layer for layer in layers if "Conv" in layer.op_type]
    macs = [layer.macs for layer in every if layer.groups]
    known = [count for count in macs if count is not None]
    return ConvolutionsInfo(
        total=len(every) + inner,
        prunable=len(macs),
        macs=sum(known) if len(known) == len(macs) else None,
    )


# --- groups


def _groups(
    graph: Graph, costs: CostModel, groups: tuple[ChannelGroup, ...]
) -> Iterator[GroupInfo]:
    names = {name: ident for ident, name in _member_names(graph, groups).items()}
    full = costs.cost(costs.full())
    for group in groups:
        single = np.zeros(group.players, bool)
        single[0] = True
        left = costs.cost({**costs.full(), group.name: single})
        yield GroupInfo(
            name=group.name,
            players=group.players,
            members=group.members,
            macs=None if costs.unmeasured else full.macs - left.macs,
            parameters=full.parameters - left.parameters,
            channels=_channels(group, {names[m] for m in group.members if m in names}),
            widths=_cuts(graph, group.shapes),
            weights=_cuts(graph, group.weights),
            indices=_cuts(graph, group.indices),
            follows=tuple(dict.fromkeys(_follow(graph, f) for f in group.follows)),
            reads=_cuts(graph, group.reads),
        )


def _channels(group: ChannelGroup, members: set[str]) -> tuple[int, ...]:
    """How many channels each player has in the outputs of the members."""
    owners = [cut.owner for cut in group.shapes if cut.tensor in members]
    counts = np.bincount(np.concatenate(owners) + 1, minlength=group.players + 1)
    return tuple(counts[1:].tolist())


def _cuts(graph: Graph, cuts: tuple[Cut, ...]) -> tuple[CutInfo, ...]:
    """Equal cuts are one, with all their readers."""
    alike: dict[tuple[str, int, bytes], list[Cut]] = {}
    for cut in cuts:
        alike.setdefault((cut.tensor, cut.axis, cut.owner.tobytes()), []).append(cut)
    return tuple(_cut(graph, same) for same in alike.values())


def _cut(graph: Graph, same: Sequence[Cut]) -> CutInfo:
    readers = (label(graph.nodes[slot.node]) for cut in same for slot in cut.readers)
    return CutInfo(
        tensor=same[0].tensor,
        axis=same[0].axis,
        width=len(same[0].owner),
        cut=int((same[0].owner != NOBODY).sum()),
        readers=tuple(dict.fromkeys(readers)),
    )


def _follow(graph: Graph, follow: Follow) -> FollowInfo:
    node, is_number = graph.nodes[follow.slot.node], follow.attribute and follow.entry < 0
    return FollowInfo(
        node=label(node),
        attribute=follow.attribute or None,
        input=None if follow.attribute else node.input[follow.slot.index],
        entry=None if is_number else follow.entry,
    )
