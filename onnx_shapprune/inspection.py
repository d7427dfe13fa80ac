"""What a model is made of: groups, what they cost, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .calibration import is_batched
from .cost import CostModel
from .errors import OptionError
from .model_io import Model
from .passes.couplings import find_groups
from .passes.graph import Graph
from .passes.shapes import bound_shape
from .report import SCHEMA_VERSION, versions
from .types import NO_WISHES, ChannelGroup, Cost, Shape, Skipped, TensorSpec, Wishes


@dataclass(frozen=True)
class GroupInfo:
    """One group; ``macs`` and ``parameters`` are what goes if a single player stays.

    ``macs`` is None where the model's sizes are open.
    """

    name: str
    players: int
    members: tuple[str, ...]
    macs: int | None
    parameters: int


@dataclass(frozen=True)
class Inspection:
    """Result of the dependency analysis, for people and machines."""

    model_sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    cost: Cost
    macs_known: bool
    groups: tuple[GroupInfo, ...]
    skipped: tuple[Skipped, ...]

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
    return Inspection(
        model_sha256=model.sha256,
        inputs=model.inputs,
        outputs=model.outputs,
        cost=costs.cost(costs.full()),
        macs_known=not costs.unmeasured,
        groups=tuple(_groups(costs, coupling.groups)),
        skipped=coupling.skipped,
    )


def _groups(costs: CostModel, groups: tuple[ChannelGroup, ...]) -> Iterator[GroupInfo]:
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
